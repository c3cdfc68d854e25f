// Command governed measures governed writes over HTTP: token check, Cedar,
// SQL, evidence and a durable commit each, by N clients beside the server on
// one machine. The same run measures what the disk gives: appends of one page
// with an fsync each, which is what a store that commits one by one cannot pass.
//
//	go run ./bench/governed -provost bin/provost [-clients 64] [-seconds 10]
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	provost := flag.String("provost", "bin/provost", "the server's binary")
	clients := flag.Int("clients", 64, "concurrent clients")
	seconds := flag.Float64("seconds", 10, "measured seconds")
	warm := flag.Float64("warm", 2, "seconds before, not counted")
	asJSON := flag.Bool("json", false, "print one JSON object")
	flag.Parse()
	r, err := measure(*provost, *clients, *warm, *seconds)
	if err != nil {
		fmt.Fprintln(os.Stderr, "governed:", err)
		os.Exit(1)
	}
	if *asJSON {
		json.NewEncoder(os.Stdout).Encode(r) //nolint:errcheck // standard output
		return
	}
	fmt.Printf("governed writes over HTTP, %d clients, %.0f s\n", r.Clients, r.Seconds)
	fmt.Printf("  rate          %8.0f /s    %.1f x one fsync per commit (%.0f /s)\n", r.Rate, r.Rate/r.FsyncRate, r.FsyncRate)
	fmt.Printf("  latency       p50 %.2f ms  p90 %.2f ms  p99 %.2f ms  max %.2f ms\n", r.P50, r.P90, r.P99, r.Max)
	fmt.Printf("  server CPU    %8.1f us per write\n", r.CPU)
	fmt.Printf("  server memory %8.0f MB idle, %.0f MB at the end\n", r.IdleMB, r.EndMB)
	fmt.Printf("  errors        %8d\n", r.Errors)
}

type result struct {
	Clients   int     `json:"clients"`
	Seconds   float64 `json:"seconds"`
	Writes    int     `json:"writes"`
	Errors    int64   `json:"errors"`
	Rate      float64 `json:"writes_per_s"`
	P50       float64 `json:"p50_ms"`
	P90       float64 `json:"p90_ms"`
	P99       float64 `json:"p99_ms"`
	Max       float64 `json:"max_ms"`
	CPU       float64 `json:"server_cpu_us"`
	IdleMB    float64 `json:"rss_idle_mb"`
	EndMB     float64 `json:"rss_end_mb"`
	FsyncRate float64 `json:"fsync_per_s"`
}

func measure(binary string, clients int, warm, seconds float64) (r result, err error) {
	dir, err := os.MkdirTemp("", "provost-bench-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	if r.FsyncRate, err = fsyncRate(dir); err != nil {
		return r, err
	}
	cmd := exec.Command(binary, "dev", "--data-dir", dir, "--listen", "127.0.0.1:0", "--s3-listen", "127.0.0.1:0")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return r, err
	}
	defer func() {
		err = errors.Join(err, cmd.Process.Signal(os.Interrupt))
		cmd.Wait() //nolint:errcheck // ended by our signal
	}()
	s, err := waitFor(filepath.Join(dir, "dev.json"))
	if err != nil {
		return r, err
	}
	token, err := s.signIn("operator")
	if err != nil {
		return r, err
	}
	r.Clients, r.Seconds = clients, seconds
	r.IdleMB = rss(cmd.Process.Pid)
	lat, cpu, failed, err := load(s, token, cmd.Process.Pid, clients, warm, seconds)
	if err != nil {
		return r, err
	}
	r.EndMB, r.Errors, r.Writes = rss(cmd.Process.Pid), failed, len(lat)
	slices.Sort(lat)
	at := func(q float64) float64 { return float64(lat[int(q*float64(len(lat)-1))].Microseconds()) / 1000 }
	r.Rate, r.CPU = float64(len(lat))/seconds, float64(cpu.Microseconds())/float64(len(lat))
	r.P50, r.P90, r.P99, r.Max = at(.5), at(.9), at(.99), at(1)
	return r, nil
}

// load drives the server and returns the latencies within the measured time.
func load(s *dev, token string, pid, clients int, warm, seconds float64) (all []time.Duration, cpu time.Duration, failed int64, err error) {
	var measuring, stop atomic.Bool
	var bad atomic.Int64
	lat := make([][]time.Duration, clients)
	errs := make([]error, clients)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() { lat[i], errs[i] = client(s, token, i, &measuring, &stop, &bad) })
	}
	time.Sleep(time.Duration(warm * float64(time.Second)))
	before := cpuTime(pid)
	measuring.Store(true)
	time.Sleep(time.Duration(seconds * float64(time.Second)))
	measuring.Store(false)
	cpu = cpuTime(pid) - before
	stop.Store(true)
	wg.Wait()
	for _, l := range lat {
		all = append(all, l...)
	}
	if len(all) == 0 {
		return nil, 0, 0, errors.Join(append(errs, errors.New("not one write succeeded"))...)
	}
	return all, cpu, bad.Load(), errors.Join(errs...)
}

// client is one keep-alive connection that asks and waits. It speaks HTTP/1.1
// by hand, so that the client's own cost is small beside the server's.
func client(s *dev, token string, n int, measuring, stop *atomic.Bool, bad *atomic.Int64) (lat []time.Duration, err error) {
	c, err := net.Dial("tcp", s.host)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	r := bufio.NewReader(c)
	now := time.Now().UTC()
	var req bytes.Buffer
	for i := 0; !stop.Load(); i++ {
		body := fmt.Sprintf(`{"id":"auth-%d-%d","issuer":"bench","subject":"demo","scope":["workload"],"valid_from":%q,"valid_to":%q}`,
			n, i, now.Format(time.RFC3339), now.Add(time.Hour).Format(time.RFC3339))
		req.Reset()
		fmt.Fprintf(&req, "POST /v1/authorities HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", s.host, token, len(body), body)
		t := time.Now()
		if _, err := c.Write(req.Bytes()); err != nil {
			return lat, err
		}
		status, err := response(r)
		if err != nil {
			return lat, err
		}
		if !measuring.Load() {
			continue
		}
		if status != 201 {
			bad.Add(1)
			continue
		}
		lat = append(lat, time.Since(t))
	}
	return lat, nil
}

// response reads one response with a Content-Length and returns its status.
func response(r *bufio.Reader) (status int, err error) {
	length := 0
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if first {
			if len(line) < 12 {
				return 0, fmt.Errorf("response begins %q", line)
			}
			if status, err = strconv.Atoi(string(line[9:12])); err != nil {
				return 0, err
			}
		}
		if len(line) == 2 {
			break
		}
		if v, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(strings.TrimSpace(string(v))); err != nil {
				return 0, err
			}
		}
	}
	_, err = r.Discard(length)
	return status, err
}

type dev struct {
	URL     string `json:"url"`
	Tenants []struct {
		ID    string `json:"id"`
		Users []struct{ Username, Password string }
	} `json:"tenants"`
	host string
}

func waitFor(path string) (*dev, error) {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		d := &dev{}
		if err := json.Unmarshal(b, d); err != nil {
			return nil, err
		}
		d.host = strings.TrimPrefix(d.URL, "http://")
		if resp, err := http.Get(d.URL + "/readyz"); err == nil {
			resp.Body.Close()
			return d, nil
		}
	}
	return nil, errors.New("the server did not come up within 30 s")
}

func (d *dev) signIn(user string) (string, error) {
	for _, u := range d.Tenants[0].Users {
		if u.Username != user {
			continue
		}
		body, err := json.Marshal(map[string]string{"username": user, "password": u.Password, "tenant": d.Tenants[0].ID})
		if err != nil {
			return "", err
		}
		resp, err := http.Post(d.URL+"/v1/auth/token", "application/json", bytes.NewReader(body))
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		var t struct {
			AccessToken string `json:"access_token"`
		}
		if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&t); err != nil || t.AccessToken == "" {
			return "", fmt.Errorf("sign in: %s %w", resp.Status, err)
		}
		return t.AccessToken, nil
	}
	return "", errors.New("no such demo user")
}

// cpuTime is the user and system time of a process, from /proc, in ticks of 10 ms.
func cpuTime(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+2:]))
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond
}

// rss is a process's resident memory in MB.
func rss(pid int) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	pages, _ := strconv.ParseFloat(strings.Fields(string(b))[1], 64)
	return pages * float64(os.Getpagesize()) / 1e6
}

// fsyncRate is how many 4 KiB appends with an fsync each the disk does per second.
func fsyncRate(dir string) (float64, error) {
	f, err := os.Create(filepath.Join(dir, "fsync"))
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	page := make([]byte, 4096)
	n, start := 0, time.Now()
	for time.Since(start) < 2*time.Second {
		if _, err := f.Write(page); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		n++
	}
	return float64(n) / time.Since(start).Seconds(), nil
}
