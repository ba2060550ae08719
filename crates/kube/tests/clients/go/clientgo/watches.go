package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/scheme"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
	watchtools "k8s.io/client-go/tools/watch"
	"k8s.io/utils/ptr"
)

func configMap(name string) *core.ConfigMap {
	return &core.ConfigMap{ObjectMeta: meta.ObjectMeta{Name: name}, Data: map[string]string{"n": "0"}}
}

func informerFlow(ctx context.Context, w *world) {
	maps := w.typed.CoreV1().ConfigMaps("default")
	_, err := maps.Create(ctx, configMap("before"), meta.CreateOptions{})
	must(err)
	factory := informers.NewSharedInformerFactoryWithOptions(w.typed, 0, informers.WithNamespace("default"))
	informer := factory.Core().V1().ConfigMaps()
	var added, updated, deleted atomic.Int32
	_, err = informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { added.Add(1) },
		UpdateFunc: func(any, any) { updated.Add(1) },
		DeleteFunc: func(any) { deleted.Add(1) },
	})
	must(err)
	// Ten kinds at once, as an operator has them.
	factory.Apps().V1().Deployments().Informer()
	factory.Apps().V1().ReplicaSets().Informer()
	factory.Core().V1().Pods().Informer()
	factory.Core().V1().Services().Informer()
	factory.Core().V1().Secrets().Informer()
	factory.Batch().V1().Jobs().Informer()
	factory.Discovery().V1().EndpointSlices().Informer()
	factory.Networking().V1().Ingresses().Informer()
	factory.Rbac().V1().Roles().Informer()
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			fail("%v is not synced", kind)
		}
	}
	check(true, "ten informers are in step")
	first := added.Load()
	check(first >= 1, "the one from before is told")
	for i := range 20 {
		_, err := maps.Create(ctx, configMap(fmt.Sprintf("informed-%d", i)), meta.CreateOptions{})
		must(err)
	}
	eventually("20 more are told", func() bool { return added.Load() == first+20 })
	for i := range 20 {
		_, err := maps.Patch(ctx, fmt.Sprintf("informed-%d", i), types.MergePatchType, []byte(`{"data":{"n":"1"}}`), meta.PatchOptions{})
		must(err)
	}
	eventually("20 changes are told", func() bool { return updated.Load() == 20 })
	for i := range 20 {
		must(maps.Delete(ctx, fmt.Sprintf("informed-%d", i), meta.DeleteOptions{}))
	}
	eventually("20 deletions are told", func() bool { return deleted.Load() == 20 })
	cached, err := informer.Lister().ConfigMaps("default").Get("before")
	must(err)
	check(cached.Data["n"] == "0", "the lister knows the one from before")

	// A plain watch that begins at a list, goes on after an end, and stops by a condition.
	list, err := maps.List(ctx, meta.ListOptions{})
	must(err)
	retrying, err := watchtools.NewRetryWatcherWithContext(ctx, list.ResourceVersion, &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, options meta.ListOptions) (watch.Interface, error) {
			options.TimeoutSeconds = ptr.To(int64(1))
			return maps.Watch(ctx, options)
		},
	})
	must(err)
	time.Sleep(1500 * time.Millisecond)
	_, err = maps.Create(ctx, configMap("after"), meta.CreateOptions{})
	must(err)
	for event := range retrying.ResultChan() {
		if event.Type == watch.Added && event.Object.(*core.ConfigMap).Name == "after" {
			break
		}
	}
	check(true, "a watch that ended goes on where it was")
	retrying.Stop()
	selector := fields.OneTermEqualSelector("metadata.name", "before").String()
	one, err := maps.Watch(ctx, meta.ListOptions{FieldSelector: selector, SendInitialEvents: ptr.To(true),
		ResourceVersionMatch: meta.ResourceVersionMatchNotOlderThan, AllowWatchBookmarks: true})
	must(err)
	event := <-one.ResultChan()
	check(event.Type == watch.Added, "a watch-list begins with what is there")
	event = <-one.ResultChan()
	check(event.Type == watch.Bookmark && event.Object.(*core.ConfigMap).Annotations[meta.InitialEventsAnnotationKey] == "true",
		"and says when that was all")
	one.Stop()
	must(maps.Delete(ctx, "before", meta.DeleteOptions{}))
	must(maps.Delete(ctx, "after", meta.DeleteOptions{}))
}

func metadataFlow(ctx context.Context, w *world) {
	client, err := metadata.NewForConfig(w.plain())
	must(err)
	resource := core.SchemeGroupVersion.WithResource("configmaps")
	factory := metadatainformer.NewSharedInformerFactory(client, 0)
	informer := factory.ForResource(resource)
	informer.Informer()
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	_, err = w.typed.CoreV1().ConfigMaps("default").Create(ctx, configMap("meta"), meta.CreateOptions{})
	must(err)
	eventually("a metadata informer sees a config map without its data", func() bool {
		object, err := informer.Lister().ByNamespace("default").Get("meta")
		return err == nil && object.(*meta.PartialObjectMetadata).UID != ""
	})
	object, err := client.Resource(resource).Namespace("default").Get(ctx, "meta", meta.GetOptions{})
	must(err)
	check(object.Name == "meta" && object.UID != "", "one object's metadata is had alone")
	list, err := client.Resource(resource).List(ctx, meta.ListOptions{})
	must(err)
	check(len(list.Items) > 0, "and those of a list")
	must(client.Resource(resource).Namespace("default").Delete(ctx, "meta", meta.DeleteOptions{}))
}

func dynamicFlow(ctx context.Context, w *world) {
	client, err := dynamic.NewForConfig(w.plain())
	must(err)
	crds := client.Resource(schema.GroupVersionResource{
		Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	definition := map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": "widgets.go.example.org"},
		"spec": map[string]any{
			"group": "go.example.org", "scope": "Namespaced",
			"names": map[string]any{"plural": "widgets", "singular": "widget", "kind": "Widget"},
			"versions": []any{map[string]any{
				"name": "v1", "served": true, "storage": true,
				"subresources": map[string]any{"status": map[string]any{}},
				"schema": map[string]any{"openAPIV3Schema": map[string]any{
					"type": "object", "properties": map[string]any{
						"spec": map[string]any{"type": "object", "properties": map[string]any{
							"size":  map[string]any{"type": "integer", "minimum": int64(1)},
							"color": map[string]any{"type": "string", "default": "red"},
						}},
						"status": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true},
					}}},
			}},
		},
	}
	_, err = crds.Create(ctx, &unstructured.Unstructured{Object: definition}, meta.CreateOptions{})
	must(err)
	eventually("the definition is established", func() bool {
		crd, err := crds.Get(ctx, "widgets.go.example.org", meta.GetOptions{})
		must(err)
		conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
		for _, condition := range conditions {
			it := condition.(map[string]any)
			if it["type"] == "Established" && it["status"] == "True" {
				return true
			}
		}
		return false
	})
	resource := schema.GroupVersionResource{Group: "go.example.org", Version: "v1", Resource: "widgets"}
	widgets := client.Resource(resource).Namespace("default")
	widget := func(name string, size int64) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "go.example.org/v1", "kind": "Widget",
			"metadata": map[string]any{"name": name}, "spec": map[string]any{"size": size}}}
	}
	made, err := widgets.Create(ctx, widget("one", 3), meta.CreateOptions{})
	must(err)
	color, _, _ := unstructured.NestedString(made.Object, "spec", "color")
	check(color == "red", "a default is filled in")
	_, err = widgets.Create(ctx, widget("bad", 0), meta.CreateOptions{})
	check(err != nil, "a size of 0 is refused")
	_, err = widgets.Apply(ctx, "one", widget("one", 5), meta.ApplyOptions{FieldManager: "go", Force: true})
	must(err)
	made, err = widgets.Get(ctx, "one", meta.GetOptions{})
	must(err)
	must(unstructured.SetNestedField(made.Object, "fine", "status", "said"))
	_, err = widgets.UpdateStatus(ctx, made, meta.UpdateOptions{})
	must(err)
	factory := dynamicinformer.NewDynamicSharedInformerFactory(client, 0)
	informer := factory.ForResource(resource)
	informer.Informer()
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	_, err = widgets.Create(ctx, widget("two", 1), meta.CreateOptions{})
	must(err)
	eventually("a dynamic informer sees both", func() bool {
		_, one := informer.Lister().ByNamespace("default").Get("one")
		_, two := informer.Lister().ByNamespace("default").Get("two")
		return one == nil && two == nil
	})
	must(crds.Delete(ctx, "widgets.go.example.org", meta.DeleteOptions{}))
	eventually("the widgets go with their definition", func() bool {
		_, err := widgets.List(ctx, meta.ListOptions{})
		return err != nil
	})
}

func leaderFlow(ctx context.Context, w *world) {
	var leading atomic.Int32
	elect := func(ctx context.Context, id string) {
		lock := &resourcelock.LeaseLock{
			LeaseMeta:  meta.ObjectMeta{Name: "leader", Namespace: "default"},
			Client:     w.typed.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: id},
		}
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock: lock, ReleaseOnCancel: true,
			LeaseDuration: 3 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 200 * time.Millisecond,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(ctx context.Context) { leading.Add(1); <-ctx.Done(); leading.Add(-1) },
				OnStoppedLeading: func() {},
			},
		})
	}
	first, cancel := context.WithCancel(ctx)
	go elect(first, "one")
	eventually("one leads", func() bool { return leading.Load() == 1 })
	go elect(ctx, "two")
	time.Sleep(time.Second)
	check(leading.Load() == 1, "two does not")
	cancel()
	var lease *coordination.Lease
	eventually("two leads after one", func() bool {
		var err error
		lease, err = w.typed.CoordinationV1().Leases("default").Get(ctx, "leader", meta.GetOptions{})
		must(err)
		return ptr.Deref(lease.Spec.HolderIdentity, "") == "two" && leading.Load() == 1
	})
	check(*lease.Spec.LeaseTransitions >= 1, "the lease counts the change")
}

func eventFlow(ctx context.Context, w *world) {
	object, err := w.typed.CoreV1().ConfigMaps("default").Create(ctx, configMap("subject"), meta.CreateOptions{})
	must(err)
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedcore.EventSinkImpl{Interface: w.typed.CoreV1().Events("")})
	recorder := broadcaster.NewRecorder(scheme.Scheme, core.EventSource{Component: "tester"})
	for range 3 {
		recorder.Event(object, core.EventTypeWarning, "Tested", "it was tested")
		time.Sleep(50 * time.Millisecond)
	}
	eventually("three events are one, counted", func() bool {
		events, err := w.typed.CoreV1().Events("default").Search(scheme.Scheme, object)
		must(err)
		return len(events.Items) == 1 && events.Items[0].Count == 3
	})
	broadcaster.Shutdown()
	list, err := w.typed.EventsV1().Events("default").List(ctx, meta.ListOptions{FieldSelector: "reason=Tested"})
	must(err)
	check(len(list.Items) == 1 && list.Items[0].Regarding.Name == "subject", "the other events group tells it too")
}
