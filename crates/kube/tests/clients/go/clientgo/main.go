// clientgo does what programs written with client-go do: `clientgo <flow>`.
//
// It prints one line per thing that went as it should and ends with status 1 at the first that did
// not.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

type world struct {
	config *rest.Config
	typed  *kubernetes.Clientset
}

var flows = map[string]func(context.Context, *world){
	"discovery": discoveryFlow,
	"typed":     typedFlow,
	"apply":     applyFlow,
	"informers": informerFlow,
	"metadata":  metadataFlow,
	"dynamic":   dynamicFlow,
	"leader":    leaderFlow,
	"events":    eventFlow,
	"tokens":    tokenFlow,
	"paging":    pagingFlow,
}

func main() {
	flow, known := flows[os.Args[1]]
	if !known {
		fail("no flow %q", os.Args[1])
	}
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	must(err)
	config.QPS, config.Burst = 200, 400
	// As clientsets of upstream's own components do.
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	typed, err := kubernetes.NewForConfig(config)
	must(err)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	flow(ctx, &world{config, typed})
	fmt.Println("done", os.Args[1])
}

// plain is the configuration for clients that speak JSON alone.
func (w *world) plain() *rest.Config {
	config := rest.CopyConfig(w.config)
	config.ContentType, config.AcceptContentTypes = "", ""
	return config
}

func must(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func check(holds bool, format string, args ...any) {
	if !holds {
		fail(format, args...)
	}
	fmt.Printf("ok: "+format+"\n", args...)
}

func fail(format string, args ...any) {
	fmt.Printf("FAILED: "+format+"\n", args...)
	os.Exit(1)
}

// eventually repeats until it holds, for 30 seconds.
func eventually(what string, holds func() bool) {
	for begin := time.Now(); time.Since(begin) < 30*time.Second; time.Sleep(50 * time.Millisecond) {
		if holds() {
			fmt.Println("ok: " + what)
			return
		}
	}
	fail("%s", what)
}
