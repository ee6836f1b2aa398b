// Command hello begins TLS with the address and server name given, as Go does or as a browser does.
//
// A browser's ClientHello comes from uTLS, which repeats it byte for byte; its random parts are random.
package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"time"

	utls "github.com/refraction-networking/utls"
)

var browsers = map[string]utls.ClientHelloID{
	"chrome":  utls.HelloChrome_133,
	"firefox": utls.HelloFirefox_120,
	"safari":  utls.HelloSafari_16_0,
}

func main() {
	who, address, name := os.Args[1], os.Args[2], os.Args[3]
	conn, err := net.Dial("tcp", address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	// Nobody answers: the handshake is to fail.
	if who == "go" {
		_ = tls.Client(conn, &tls.Config{ServerName: name}).Handshake()
		return
	}
	_ = utls.UClient(conn, &utls.Config{ServerName: name}, browsers[who]).Handshake()
}
