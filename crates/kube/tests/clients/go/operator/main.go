// operator runs in a pod and has nothing but what every pod has: it watches ConfigMaps and makes
// Secrets of them, it is asked about new ConfigMaps (a validating webhook), and it answers for an
// API group of its own.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"time"

	admission "k8s.io/api/admission/v1"
	registration "k8s.io/api/admissionregistration/v1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

const (
	name  = "operator"
	group = "flowers.example.com"
)

func main() {
	config, err := rest.InClusterConfig()
	must(err)
	client := kubernetes.NewForConfigOrDie(config)
	text, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	must(err)
	namespace := string(text)
	ctx := context.Background()

	bundle, certificate := selfSigned(fmt.Sprintf("%s.%s.svc", name, namespace))
	server := &http.Server{Addr: ":8443", Handler: handler(namespace),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}}}
	go func() { must(server.ListenAndServeTLS("", "")) }()
	register(ctx, config, client, namespace, bundle)
	copyForever(ctx, client, namespace)
}

// copyForever makes a Secret of every ConfigMap that is labelled copy=yes.
func copyForever(ctx context.Context, client kubernetes.Interface, namespace string) {
	factory := informers.NewSharedInformerFactoryWithOptions(client, time.Hour,
		informers.WithNamespace(namespace),
		informers.WithTweakListOptions(func(options *meta.ListOptions) { options.LabelSelector = "copy=yes" }))
	informer := factory.Core().V1().ConfigMaps().Informer()
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(object any) {
		settings := object.(*core.ConfigMap)
		secret := &core.Secret{ObjectMeta: meta.ObjectMeta{Name: settings.Name,
			OwnerReferences: []meta.OwnerReference{*meta.NewControllerRef(settings,
				core.SchemeGroupVersion.WithKind("ConfigMap"))}}, StringData: settings.Data}
		_, err := client.CoreV1().Secrets(namespace).Create(ctx, secret, meta.CreateOptions{})
		fmt.Println("copied", settings.Name, err)
	}})
	must(err)
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	fmt.Println("watching")
	<-ctx.Done()
}

// register tells the API server what it finds here.
func register(ctx context.Context, config *rest.Config, client kubernetes.Interface, namespace string, bundle []byte) {
	path, fail, none := "/validate", registration.Fail, registration.SideEffectClassNone
	hooks := &registration.ValidatingWebhookConfiguration{ObjectMeta: meta.ObjectMeta{Name: name},
		Webhooks: []registration.ValidatingWebhook{{
			Name: "settings.operator.example.com", FailurePolicy: &fail, SideEffects: &none,
			AdmissionReviewVersions: []string{"v1"},
			NamespaceSelector: &meta.LabelSelector{MatchLabels: map[string]string{
				"kubernetes.io/metadata.name": namespace}},
			ClientConfig: registration.WebhookClientConfig{CABundle: bundle,
				Service: &registration.ServiceReference{Namespace: namespace, Name: name, Path: &path}},
			Rules: []registration.RuleWithOperations{{
				Operations: []registration.OperationType{registration.Create},
				Rule: registration.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"},
					Resources: []string{"configmaps"}}}}}}}
	configurations := client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	_, err := configurations.Create(ctx, hooks, meta.CreateOptions{})
	exists(err)

	service := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
		"metadata": map[string]any{"name": "v1." + group},
		"spec": map[string]any{"group": group, "version": "v1", "caBundle": bundle,
			"groupPriorityMinimum": int64(1000), "versionPriority": int64(10),
			"service": map[string]any{"namespace": namespace, "name": name}}}}
	services := schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"}
	encoded, err := json.Marshal(service.Object)
	must(err)
	must(json.Unmarshal(encoded, &service.Object))
	_, err = dynamic.NewForConfigOrDie(config).Resource(services).Create(ctx, service, meta.CreateOptions{})
	exists(err)
}

func handler(namespace string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/validate", func(w http.ResponseWriter, r *http.Request) {
		var review admission.AdmissionReview
		var settings core.ConfigMap
		if json.NewDecoder(r.Body).Decode(&review) != nil || json.Unmarshal(review.Request.Object.Raw, &settings) != nil {
			http.Error(w, "not a review", http.StatusBadRequest)
			return
		}
		_, forbidden := settings.Data["forbidden"]
		review.Response = &admission.AdmissionResponse{UID: review.Request.UID, Allowed: !forbidden}
		if forbidden {
			review.Response.Result = &meta.Status{Message: "the operator will not have it"}
		}
		answer(w, review)
	})
	flower := map[string]any{"kind": "Flower", "apiVersion": group + "/v1",
		"metadata": map[string]any{"name": "rose", "namespace": namespace}}
	mux.HandleFunc("/apis/"+group+"/v1", func(w http.ResponseWriter, r *http.Request) {
		answer(w, map[string]any{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group + "/v1",
			"resources": []any{map[string]any{"name": "flowers", "singularName": "flower", "namespaced": true,
				"kind": "Flower", "verbs": []string{"get"}}}})
	})
	mux.HandleFunc("/apis/"+group+"/v1/namespaces/"+namespace+"/flowers/rose", func(w http.ResponseWriter, r *http.Request) {
		flower["user"] = r.Header.Get("X-Remote-User")
		answer(w, flower)
	})
	mux.HandleFunc("/where", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.URL.RawQuery) })
	return mux
}

func answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

// selfSigned makes a certificate for one name; PEM, and with its key.
func selfSigned(host string) ([]byte, tls.Certificate) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// exists lets pass what is there already: a container that began again has been here before.
func exists(err error) {
	if !apierrors.IsAlreadyExists(err) {
		must(err)
	}
}

func must(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
