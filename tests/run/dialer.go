// Dials many times at once while the runtime sends itself SIGURG, and looks a name up with Go's own
// resolver: the tests build it without cgo, as a static program.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"time"
)

func echo(connection net.Conn) error {
	defer connection.Close()
	if _, err := connection.Write([]byte("hello")); err != nil {
		return err
	}
	back := make([]byte, 5)
	if _, err := io.ReadFull(connection, back); err != nil {
		return err
	}
	if string(back) != "hello" {
		return fmt.Errorf("came back as %q", back)
	}
	return nil
}

func dial(address string) error {
	connection, err := net.DialTimeout("tcp", address, 20*time.Second)
	if err != nil {
		return err
	}
	return echo(connection)
}

func main() {
	way, target := os.Args[1], os.Args[2]
	failed := make(chan error, 100)
	switch way {
	case "many":
		go func() {
			for {
				runtime.GC() // preempts every goroutine, by SIGURG
			}
		}()
		var all sync.WaitGroup
		for i := 0; i < 100; i++ {
			all.Add(1)
			go func() {
				defer all.Done()
				if err := dial(target); err != nil {
					failed <- err
				}
			}()
		}
		all.Wait()
	case "one":
		if err := dial(target); err != nil {
			failed <- err
		}
	case "resolve":
		found, err := net.DefaultResolver.LookupHost(context.Background(), target)
		if err != nil {
			failed <- err
		}
		fmt.Println(target, "is", found)
	}
	select {
	case err := <-failed:
		fmt.Println(err)
		os.Exit(1)
	default:
		fmt.Println("ok")
	}
}
