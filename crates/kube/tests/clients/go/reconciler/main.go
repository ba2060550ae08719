// reconciler is a small operator made with controller-runtime: it keeps a Secret beside every
// ConfigMap with a label, owns it, and counts in the ConfigMap's annotations.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

type reconciler struct{ client.Client }

const finalizer = "go.example.org/copied"

func (r *reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var settings core.ConfigMap
	if err := r.Get(ctx, request.NamespacedName, &settings); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if settings.Labels["copy"] != "yes" {
		return ctrl.Result{}, nil
	}
	if !settings.DeletionTimestamp.IsZero() {
		if controllerutil.RemoveFinalizer(&settings, finalizer) {
			return ctrl.Result{}, r.Update(ctx, &settings)
		}
		return ctrl.Result{}, nil
	}
	if controllerutil.AddFinalizer(&settings, finalizer) {
		return ctrl.Result{}, r.Update(ctx, &settings)
	}
	secret := &core.Secret{ObjectMeta: meta.ObjectMeta{Name: settings.Name, Namespace: settings.Namespace}}
	_, err := controllerutil.CreateOrPatch(ctx, r.Client, secret, func() error {
		secret.StringData = settings.Data
		return controllerutil.SetControllerReference(&settings, secret, r.Scheme())
	})
	return ctrl.Result{}, err
}

func main() {
	ctrl.SetLogger(zap.New())
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	must(err)
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Metrics:        server.Options{BindAddress: "0"},
		LeaderElection: true, LeaderElectionID: "reconciler.go.example.org", LeaderElectionNamespace: "default",
	})
	must(err)
	must(ctrl.NewControllerManagedBy(manager).For(&core.ConfigMap{}).Owns(&core.Secret{}).
		Complete(&reconciler{manager.GetClient()}))
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	go func() {
		drive(ctx, manager.GetClient())
		os.Exit(0)
	}()
	must(manager.Start(ctx))
}

// drive makes a config map and looks at what becomes of it.
func drive(ctx context.Context, c client.Client) {
	settings := &core.ConfigMap{ObjectMeta: meta.ObjectMeta{
		Name: "source", Namespace: "default", Labels: map[string]string{"copy": "yes"}},
		Data: map[string]string{"k": "v"}}
	must(c.Create(ctx, settings))
	key := client.ObjectKeyFromObject(settings)
	var secret core.Secret
	eventually("the secret is made", func() bool {
		return c.Get(ctx, key, &secret) == nil && string(secret.Data["k"]) == "v"
	})
	patch := client.MergeFrom(settings.DeepCopy())
	settings.Data["k"] = "w"
	must(c.Patch(ctx, settings, patch))
	eventually("the secret follows", func() bool {
		return c.Get(ctx, key, &secret) == nil && string(secret.Data["k"]) == "w"
	})
	must(c.Delete(ctx, &secret))
	old := secret.UID
	eventually("the secret comes back", func() bool {
		return c.Get(ctx, key, &secret) == nil && secret.UID != old
	})
	must(c.Delete(ctx, settings))
	eventually("both go", func() bool {
		return apierrors.IsNotFound(c.Get(ctx, key, settings)) && apierrors.IsNotFound(c.Get(ctx, key, &secret))
	})
	fmt.Println("done reconciler")
}

func must(err error) {
	if err != nil {
		fmt.Println("FAILED:", err)
		os.Exit(1)
	}
}

func eventually(what string, holds func() bool) {
	for begin := time.Now(); time.Since(begin) < 30*time.Second; time.Sleep(50 * time.Millisecond) {
		if holds() {
			fmt.Println("ok:", what)
			return
		}
	}
	fmt.Println("FAILED:", what)
	os.Exit(1)
}
