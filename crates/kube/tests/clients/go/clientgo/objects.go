package main

import (
	"context"
	"fmt"

	apps "k8s.io/api/apps/v1"
	authentication "k8s.io/api/authentication/v1"
	autoscaling "k8s.io/api/autoscaling/v1"
	core "k8s.io/api/core/v1"
	errors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	appsapply "k8s.io/client-go/applyconfigurations/apps/v1"
	coreapply "k8s.io/client-go/applyconfigurations/core/v1"
	metaapply "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/pager"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func discoveryFlow(_ context.Context, w *world) {
	client := w.typed.Discovery()
	version, err := client.ServerVersion()
	must(err)
	check(version.Major == "1", "server is of major version 1")
	groups, resources, err := client.ServerGroupsAndResources()
	must(err)
	check(len(groups) > 10 && len(resources) > 10, "many groups are discovered")
	for _, group := range groups {
		found := false
		for _, version := range group.Versions {
			found = found || version == group.PreferredVersion
		}
		if !found {
			fail("group %s prefers a version that it does not have", group.Name)
		}
	}
	preferred, err := discovery.ServerPreferredNamespacedResources(client)
	must(err)
	check(len(preferred) > 5, "preferred namespaced resources are told")
	mapped, err := restmapper.GetAPIGroupResources(client)
	must(err)
	mapper := restmapper.NewDiscoveryRESTMapper(mapped)
	mapping, err := mapper.RESTMapping(schema.GroupKind{Group: "apps", Kind: "Deployment"})
	must(err)
	check(mapping.Resource.Resource == "deployments", "kinds are mapped to resources")
	paths, err := client.OpenAPIV3().Paths()
	must(err)
	document, err := paths["apis/apps/v1"].Schema("application/com.github.proto-openapi.spec.v3.v1.0+protobuf")
	check(err == nil && len(document) > 1000 || err != nil, "OpenAPI v3 of apps answers protobuf or says no")
	document, err = paths["api/v1"].Schema("application/json")
	must(err)
	check(len(document) > 10000, "OpenAPI v3 of core is there in JSON")
	if _, err := client.OpenAPISchema(); err != nil {
		fail("OpenAPI v2 in protobuf: %v", err)
	}
	legacy := discovery.NewDiscoveryClientForConfigOrDie(w.plain())
	legacy.UseLegacyDiscovery = true
	_, resources, err = legacy.ServerGroupsAndResources()
	must(err)
	check(len(resources) > 10, "plain discovery says as much")
}

func podTemplate(name string) core.PodTemplateSpec {
	return core.PodTemplateSpec{
		ObjectMeta: meta.ObjectMeta{Labels: map[string]string{"app": name}},
		Spec:       core.PodSpec{Containers: []core.Container{{Name: "c", Image: "web:1"}}},
	}
}

func deployment(name string) *apps.Deployment {
	return &apps.Deployment{
		ObjectMeta: meta.ObjectMeta{Name: name},
		Spec: apps.DeploymentSpec{
			Replicas: ptr.To(int32(2)),
			Selector: &meta.LabelSelector{MatchLabels: map[string]string{"app": name}},
			Template: podTemplate(name),
		},
	}
}

func typedFlow(ctx context.Context, w *world) {
	maps := w.typed.CoreV1().ConfigMaps("default")
	made, err := maps.Create(ctx, &core.ConfigMap{
		ObjectMeta: meta.ObjectMeta{Name: "typed", Labels: map[string]string{"a": "b"}},
		Data:       map[string]string{"k": "v"},
		BinaryData: map[string][]byte{"bytes": {0, 1, 255}},
	}, meta.CreateOptions{FieldValidation: "Strict"})
	must(err)
	check(made.UID != "" && made.BinaryData["bytes"][2] == 255, "a config map goes in and comes back")
	_, err = maps.Create(ctx, made.DeepCopy(), meta.CreateOptions{})
	check(err != nil, "a resourceVersion on create is refused")
	_, err = maps.Create(ctx, &core.ConfigMap{ObjectMeta: meta.ObjectMeta{Name: "typed"}}, meta.CreateOptions{})
	check(errors.IsAlreadyExists(err), "the second one already exists")
	stale := made.DeepCopy()
	made.Data["k"] = "w"
	made, err = maps.Update(ctx, made, meta.UpdateOptions{})
	must(err)
	stale.Data["k"] = "x"
	_, err = maps.Update(ctx, stale, meta.UpdateOptions{})
	check(errors.IsConflict(err), "an update of an old version conflicts")
	must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		fresh, err := maps.Get(ctx, "typed", meta.GetOptions{})
		must(err)
		fresh.Data["k"] = "x"
		_, err = maps.Update(ctx, fresh, meta.UpdateOptions{})
		return err
	}))
	_, err = maps.Get(ctx, "none", meta.GetOptions{})
	check(errors.IsNotFound(err), "what is not there is not found")
	_, err = maps.Patch(ctx, "typed", types.StrategicMergePatchType, []byte(`{"data":{"n":"m"}}`), meta.PatchOptions{})
	must(err)
	uid := types.UID("another")
	err = maps.Delete(ctx, "typed", meta.DeleteOptions{Preconditions: &meta.Preconditions{UID: &uid}})
	check(errors.IsConflict(err), "a deletion of another uid conflicts")
	must(maps.Delete(ctx, "typed", meta.DeleteOptions{}))
	must(maps.DeleteCollection(ctx, meta.DeleteOptions{}, meta.ListOptions{LabelSelector: "a=b"}))

	deployments := w.typed.AppsV1().Deployments("default")
	_, err = deployments.Create(ctx, deployment("typed"), meta.CreateOptions{})
	must(err)
	eventually("the deployment becomes available", func() bool {
		it, err := deployments.Get(ctx, "typed", meta.GetOptions{})
		must(err)
		return it.Status.AvailableReplicas == 2
	})
	scale, err := deployments.GetScale(ctx, "typed", meta.GetOptions{})
	must(err)
	scale.Spec.Replicas = 1
	_, err = deployments.UpdateScale(ctx, "typed", &autoscaling.Scale{
		ObjectMeta: scale.ObjectMeta, Spec: scale.Spec}, meta.UpdateOptions{})
	must(err)
	it, err := deployments.Get(ctx, "typed", meta.GetOptions{})
	must(err)
	check(*it.Spec.Replicas == 1, "the scale is the replicas")
	foreground := meta.DeletePropagationForeground
	must(deployments.Delete(ctx, "typed", meta.DeleteOptions{PropagationPolicy: &foreground}))
	eventually("the deployment is gone with its pods", func() bool {
		_, err := deployments.Get(ctx, "typed", meta.GetOptions{})
		pods, listed := w.typed.CoreV1().Pods("default").List(ctx, meta.ListOptions{LabelSelector: "app=typed"})
		must(listed)
		return errors.IsNotFound(err) && len(pods.Items) == 0
	})
	invalid := deployment("Not_Valid")
	_, err = deployments.Create(ctx, invalid, meta.CreateOptions{})
	check(errors.IsInvalid(err), "a bad name is invalid")
}

func applyFlow(ctx context.Context, w *world) {
	maps := w.typed.CoreV1().ConfigMaps("default")
	mine := coreapply.ConfigMap("applied", "default").WithData(map[string]string{"a": "1"})
	_, err := maps.Apply(ctx, mine, meta.ApplyOptions{FieldManager: "one"})
	must(err)
	other := coreapply.ConfigMap("applied", "default").WithData(map[string]string{"a": "2"})
	_, err = maps.Apply(ctx, other, meta.ApplyOptions{FieldManager: "two"})
	check(errors.IsConflict(err), "another manager meets a conflict")
	taken, err := maps.Apply(ctx, other, meta.ApplyOptions{FieldManager: "two", Force: true})
	must(err)
	check(taken.Data["a"] == "2", "and takes the field by force")
	extracted, err := coreapply.ExtractConfigMap(taken, "two")
	must(err)
	check(extracted.Data["a"] == "2", "what it owns can be extracted")
	_, err = w.typed.AppsV1().Deployments("default").Apply(ctx, appsapply.Deployment("applied", "default").
		WithSpec(appsapply.DeploymentSpec().WithReplicas(1).
			WithSelector(metaapply.LabelSelector().WithMatchLabels(map[string]string{"app": "applied"})).
			WithTemplate(coreapply.PodTemplateSpec().WithLabels(map[string]string{"app": "applied"}).
				WithSpec(coreapply.PodSpec().WithContainers(coreapply.Container().WithName("c").WithImage("a:1"))))),
		meta.ApplyOptions{FieldManager: "one"})
	must(err)
	status, err := w.typed.CoreV1().Namespaces().ApplyStatus(ctx, coreapply.Namespace("default").
		WithStatus(coreapply.NamespaceStatus().WithConditions(coreapply.NamespaceCondition().
			WithType("Applied").WithStatus("True").WithReason("R").WithMessage("m"))),
		meta.ApplyOptions{FieldManager: "status"})
	must(err)
	check(len(status.Status.Conditions) == 1, "a status is applied")
	must(w.typed.AppsV1().Deployments("default").Delete(ctx, "applied", meta.DeleteOptions{}))
}

func tokenFlow(ctx context.Context, w *world) {
	accounts := w.typed.CoreV1().ServiceAccounts("default")
	_, err := accounts.Create(ctx, &core.ServiceAccount{ObjectMeta: meta.ObjectMeta{Name: "robot"}}, meta.CreateOptions{})
	must(err)
	request := &authentication.TokenRequest{Spec: authentication.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(3600))}}
	request, err = accounts.CreateToken(ctx, "robot", request, meta.CreateOptions{})
	must(err)
	review, err := w.typed.AuthenticationV1().TokenReviews().Create(ctx, &authentication.TokenReview{
		Spec: authentication.TokenReviewSpec{Token: request.Status.Token}}, meta.CreateOptions{})
	must(err)
	check(review.Status.Authenticated && review.Status.User.Username == "system:serviceaccount:default:robot",
		"the token is that of the robot")
	config := rest.AnonymousClientConfig(w.config)
	config.BearerToken = request.Status.Token
	robot, err := kubernetes.NewForConfig(config)
	must(err)
	_, err = robot.CoreV1().Secrets("default").List(ctx, meta.ListOptions{})
	check(errors.IsForbidden(err), "the robot may not list secrets")
	self, err := robot.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authentication.SelfSubjectReview{}, meta.CreateOptions{})
	must(err)
	check(self.Status.UserInfo.Username == review.Status.User.Username, "the robot knows itself")
	config.BearerToken = "nonsense"
	nobody, err := kubernetes.NewForConfig(config)
	must(err)
	_, err = nobody.CoreV1().Pods("default").List(ctx, meta.ListOptions{})
	check(errors.IsUnauthorized(err), "nonsense is unauthorized")
}

func pagingFlow(ctx context.Context, w *world) {
	maps := w.typed.CoreV1().ConfigMaps("default")
	for i := range 25 {
		_, err := maps.Create(ctx, &core.ConfigMap{ObjectMeta: meta.ObjectMeta{
			Name: fmt.Sprintf("page-%02d", i), Labels: map[string]string{"paged": "yes"}}}, meta.CreateOptions{})
		must(err)
	}
	seen := 0
	lister := pager.New(pager.SimplePageFunc(func(options meta.ListOptions) (runtime.Object, error) {
		options.LabelSelector = "paged=yes"
		return maps.List(ctx, options)
	}))
	lister.PageSize = 10
	must(lister.EachListItem(ctx, meta.ListOptions{}, func(runtime.Object) error {
		seen++
		return nil
	}))
	check(seen == 25, "all 25 come in pages of 10")
	_, err := maps.List(ctx, meta.ListOptions{Continue: "garbage", Limit: 1})
	check(errors.IsBadRequest(err), "a garbage continue token is a bad request")
	must(maps.DeleteCollection(ctx, meta.DeleteOptions{}, meta.ListOptions{LabelSelector: "paged=yes"}))
	left, err := maps.List(ctx, meta.ListOptions{LabelSelector: "paged=yes"})
	must(err)
	check(len(left.Items) == 0, "and go together")
}
