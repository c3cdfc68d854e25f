// Command guest is the only program in the images of the acceptance tests. It
// needs nothing of the image but itself.
package main

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// lifetime ends a guest that a failed test left behind.
const lifetime = 10 * time.Minute

func main() {
	verb, arg := "tick", ""
	if len(os.Args) > 1 {
		verb = os.Args[1]
	}
	if len(os.Args) > 2 {
		arg = os.Args[2]
	}
	switch verb {
	case "print":
		fmt.Println(arg)
	case "exit":
		code, err := strconv.Atoi(arg)
		if err != nil {
			panic(err)
		}
		os.Exit(code)
	case "probe":
		probe()
	case "eat":
		eat()
	default:
		tick()
	}
}

// tick says who it is once and then counts, until it is told to stop.
func tick() {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	fmt.Println("boot", rand.Text())
	beat, end := time.NewTicker(50*time.Millisecond), time.After(lifetime)
	for n := 1; ; n++ {
		select {
		case <-term:
			fmt.Println("bye")
			return
		case <-end:
			os.Exit(1)
		case <-beat.C:
			fmt.Println("tick", n)
		}
	}
}

// probe prints what the process finds itself confined by, as KEY=value.
func probe() {
	fmt.Println("pid=" + strconv.Itoa(os.Getpid()))
	fmt.Println("uid=" + strconv.Itoa(os.Getuid()))
	f, err := os.Open("/proc/self/status")
	if err != nil {
		panic(err)
	}
	for s := bufio.NewScanner(f); s.Scan(); {
		for _, key := range []string{"CapEff", "CapBnd", "NoNewPrivs", "Seccomp"} {
			if v, ok := strings.CutPrefix(s.Text(), key+":"); ok {
				fmt.Println(key + "=" + strings.TrimSpace(v))
			}
		}
	}
	fmt.Println("root=" + outcome(os.WriteFile("/written", nil, 0o600)))
	fmt.Println("tmp=" + outcome(os.WriteFile("/tmp/written", nil, 0o600)))
	fmt.Println("mount=" + outcome(syscall.Mount("none", "/tmp", "tmpfs", 0, "")))
	links, err := net.Interfaces()
	if err != nil {
		panic(err)
	}
	var names []string
	for _, l := range links {
		names = append(names, l.Name)
	}
	fmt.Println("interfaces=" + strings.Join(names, ","))
	_, err = net.DialTimeout("tcp", "192.0.2.1:80", time.Second)
	fmt.Println("dial=" + outcome(err))
}

func outcome(err error) string {
	if err == nil {
		return "allowed"
	}
	return "denied"
}

// eat touches memory until it is stopped.
func eat() {
	var kept [][]byte
	for {
		b := make([]byte, 1<<20)
		for i := range b {
			b[i] = 1
		}
		kept = append(kept, b)
		if len(kept) > 4<<10 {
			panic("4 GiB were granted")
		}
	}
}
