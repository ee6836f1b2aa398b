// The services on the far side that no package brings ready-made: HTTPS with a git repository and a
// GitHub server's answers behind it, what kubectl needs of a Kubernetes API, and gRPC with health and
// reflection.
//
// far CERT KEY GIT_ROOT: HTTPS at 127.0.0.1:443, Kubernetes at :6443, gRPC at :50051, all with TLS.
package main

import (
	"crypto/tls"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
)

func main() {
	cert, key, root := os.Args[1], os.Args[2], os.Args[3]
	go serve("127.0.0.1:443", web(root), cert, key)
	go serve("127.0.0.1:6443", kubernetes(), cert, key)
	log.Fatal(remoteCalls("127.0.0.1:50051", cert, key))
}

func serve(at string, handler http.Handler, cert, key string) {
	// HTTP/1.1 only: a connection is hijacked for exec, and a request is a connection.
	server := http.Server{Addr: at, Handler: handler, TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}}
	log.Fatal(server.ListenAndServeTLS(cert, key))
}

func web(root string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/hello", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello to %s\n", r.Host)
	})
	hub(mux)
	git, err := exec.LookPath("git")
	if err != nil {
		log.Fatal(err)
	}
	mux.Handle("/git/", &cgi.Handler{Path: git, Root: "/git", Args: []string{"http-backend"},
		Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=ops", "GIT_CONFIG_GLOBAL=" + root + "/config"}})
	return mux
}

func remoteCalls(at, cert, key string) error {
	listener, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	own, err := credentials.NewServerTLSFromFile(cert, key)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.Creds(own))
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	reflection.Register(server)
	return server.Serve(listener)
}
