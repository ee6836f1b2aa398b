package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/util/httpstream/spdy"
	"k8s.io/client-go/tools/portforward"
)

type object = map[string]any

// One namespace with one pod.
func kubernetes() http.Handler {
	mux := http.NewServeMux()
	const pods = "/api/v1/namespaces/default/pods"
	say := func(path string, what object) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(what)
		})
	}
	say("/api", object{"kind": "APIVersions", "versions": []string{"v1"}})
	say("/apis", object{"kind": "APIGroupList", "apiVersion": "v1", "groups": []string{}})
	say("/api/v1", object{"kind": "APIResourceList", "groupVersion": "v1", "resources": []object{
		{"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "verbs": []string{"get", "list"}},
	}})
	say(pods, object{"kind": "PodList", "apiVersion": "v1", "metadata": object{}, "items": []object{pod}})
	say(pods+"/web-0", pod)
	mux.HandleFunc("GET "+pods+"/web-0/log", logs)
	mux.HandleFunc(pods+"/web-0/exec", execute)
	mux.HandleFunc(pods+"/web-0/portforward", forward)
	return mux
}

var pod = object{
	"kind": "Pod", "apiVersion": "v1",
	"metadata": object{"name": "web-0", "namespace": "default"},
	"spec":     object{"containers": []object{{"name": "web", "image": "web"}}},
	"status":   object{"phase": "Running"},
}

// A line, and two more while the client follows.
func logs(w http.ResponseWriter, r *http.Request) {
	for line := 1; line <= 3; line++ {
		fmt.Fprintf(w, "line %d\n", line)
		w.(http.Flusher).Flush()
		if r.URL.Query().Get("follow") == "" {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Channels of v5.channel.k8s.io: the first byte of each message.
const (
	stdin  = 0
	stdout = 1
	status = 3
	closed = 255
)

// The command is not run: what comes in goes out again, as `cat` would have it.
func execute(w http.ResponseWriter, r *http.Request) {
	upgrader := websocket.Upgrader{Subprotocols: []string{"v5.channel.k8s.io"}}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		log.Println("exec:", err)
		return
	}
	defer conn.Close()
	for {
		_, message, err := conn.ReadMessage()
		if err != nil {
			log.Println("exec:", err)
			return
		}
		if message[0] == stdin {
			message[0] = stdout
			conn.WriteMessage(websocket.BinaryMessage, message)
		}
		if message[0] == closed && message[1] == stdin {
			break
		}
	}
	conn.WriteMessage(websocket.BinaryMessage, append([]byte{status}, `{"status":"Success"}`...))
	conn.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""))
}

// SPDY in a WebSocket, two streams for each connection: the pod's port is our own HTTPS.
func forward(w http.ResponseWriter, r *http.Request) {
	upgrader := websocket.Upgrader{Subprotocols: []string{"SPDY/3.1+portforward.k8s.io"}}
	socket, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		log.Println("portforward:", err)
		return
	}
	streams := make(chan httpstream.Stream, 8)
	conn, err := spdy.NewServerConnection(portforward.NewTunnelingConnection("server", socket),
		func(stream httpstream.Stream, replied <-chan struct{}) error {
			streams <- stream
			return nil
		})
	if err != nil {
		log.Println("portforward:", err)
		return
	}
	defer conn.Close()
	for {
		select {
		case <-conn.CloseChan():
			return
		case stream := <-streams:
			if stream.Headers().Get("streamType") == "data" {
				go toPort(stream)
			} else {
				stream.Close() // nothing to complain of
			}
		}
	}
}

func toPort(stream httpstream.Stream) {
	defer stream.Close()
	port, err := net.Dial("tcp", "127.0.0.1:"+stream.Headers().Get("port"))
	if err != nil {
		log.Println("portforward:", err)
		return
	}
	defer port.Close()
	go io.Copy(port, stream)
	io.Copy(stream, port)
}
