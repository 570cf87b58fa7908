// Calls skilld over JSON lines: go run skilld.go [-s SOCKET] [METHOD [PARAMS]], PARAMS being JSON. Needs Go 1.18 or newer.
// Prints the result as JSON. Exit status: 0 done, 1 refused, 3 no daemon that answers.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
)

func or(value, other string) string {
	if value == "" {
		return other
	}
	return value
}

func fail(status int, facts ...any) {
	fmt.Fprintln(os.Stderr, facts...)
	os.Exit(status)
}

func main() {
	given := flag.String("s", "", "path of the socket")
	flag.Parse()
	runtime := or(os.Getenv("XDG_RUNTIME_DIR"), fmt.Sprintf("/run/user/%d", os.Geteuid()))
	paths := []string{"/var/run/skilld.sock", "/run/skilld.sock", "/var/run/skilld/skilld.sock", "/run/skilld/skilld.sock", runtime + "/skilld/skilld.sock"}
	if endpoint := or(*given, os.Getenv("SKILLD_ENDPOINT")); endpoint != "" {
		paths = []string{endpoint}
	}
	request := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"%s","params":%s}`, or(flag.Arg(0), "skills.list"), or(flag.Arg(1), "{}"))
	for _, path := range paths {
		connection, err := net.Dial("unix", path)
		if err != nil {
			continue // nobody listens here
		}
		// One request is one line: line breaks in JSON are white space.
		fmt.Fprintln(connection, strings.ReplaceAll(request, "\n", " "))
		var reply struct {
			Result json.RawMessage
			Error  *struct {
				Code    int
				Message string
				Data    struct{ Reason string }
			}
		}
		if err := json.NewDecoder(connection).Decode(&reply); err != nil {
			fail(3, path, "no answer:", err)
		}
		if reply.Error != nil {
			fail(1, reply.Error.Code, reply.Error.Data.Reason+":", reply.Error.Message)
		}
		fmt.Println(string(reply.Result))
		return
	}
	fail(3, "no daemon at", strings.Join(paths, " "))
}
