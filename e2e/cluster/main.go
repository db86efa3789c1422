// Command cluster is every part of a Kubernetes cluster in one binary: the name it is called by says which part it is.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
)

// One function per file of that name; each returns the exit code.
var components = map[string]func() int{
	"coredns":                 coredns,
	"etcd":                    etcd,
	"kube-apiserver":          apiserver,
	"kube-controller-manager": controllerManager,
	"kube-proxy":              proxy,
	"kube-scheduler":          scheduler,
	"kubectl":                 kubectl,
	"kubelet":                 kubelet,
}

func main() {
	name := filepath.Base(os.Args[0])
	component, known := components[name]
	if !known {
		fmt.Fprintf(os.Stderr, "%s: not the name of a component, make a symlink of its name to this file\n", name)
		os.Exit(2)
	}
	os.Exit(component())
}
