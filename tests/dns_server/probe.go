// Prints each name's addresses in their order, or each address's name, by Go's own resolver; then records of
// other types.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"sort"
	"strings"
)

func main() {
	resolver := &net.Resolver{PreferGo: true}
	background := context.Background()
	for _, name := range os.Args[1:] {
		if net.ParseIP(name) != nil {
			names, err := resolver.LookupAddr(background, name)
			if err != nil {
				names = []string{"nobody"}
			}
			fmt.Println(name, "is", strings.TrimSuffix(names[0], "."))
			continue
		}
		addresses, err := resolver.LookupHost(background, name)
		if err != nil {
			addresses = []string{"no"}
		}
		sort.Strings(addresses)
		fmt.Println(name+":", strings.Join(addresses, " "))
	}
	texts, err := resolver.LookupTXT(background, "x.corp.example")
	fmt.Println(strings.TrimSpace("TXT " + strings.Join(texts, " ") + text(err)))
	_, services, _ := resolver.LookupSRV(background, "pg", "tcp", "corp.example")
	for _, service := range services {
		fmt.Println("SRV", service.Target, service.Port)
	}
	mails, _ := resolver.LookupMX(background, "x.corp.example")
	for _, mail := range mails {
		fmt.Println("MX", mail.Host, mail.Pref)
	}
}

func text(err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}
