package main

import (
	"github.com/coredns/coredns/coremain"

	// One by one: the usual list brings the SDKs of several clouds along.
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
)

func coredns() int {
	coremain.Run()
	return 0
}
