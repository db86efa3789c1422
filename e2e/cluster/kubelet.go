package main

import (
	"context"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kubelet/app"
)

func kubelet() int {
	// The command installs a signal handler of its own; a second one would panic.
	return cli.Run(app.NewKubeletCommand(context.Background()))
}
