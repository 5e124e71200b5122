package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/weir-edge/weir/agent/api"
)

// videoCommand is `weir video`.
type videoCommand struct {
	List videoListCommand `cmd:"" help:"List the cameras, or what one of them recorded."`
	Clip videoClipCommand `cmd:"" help:"Cut an MP4 from what a camera recorded."`
}

type videoListCommand struct {
	online
	Camera string `arg:"" optional:"" help:"List the recordings of this camera."`
	From   string `placeholder:"TIME" help:"Only recordings after this time (or 15m for that long ago)."`
	To     string `placeholder:"TIME" help:"Only recordings before this time."`
	JSON   bool   `help:"Print JSON."`
}

func (v *videoListCommand) Run(ctx context.Context, c *console) error {
	query, err := timeQuery(v.From, v.To)
	if err != nil {
		return err
	}
	client, err := v.client()
	if err != nil {
		return err
	}
	if v.Camera != "" {
		return v.recordings(ctx, c, client, query)
	}
	if len(query) > 0 {
		return usage(errors.New("--from and --to need a camera"), "weir video list CAMERA --from 1h")
	}
	var answer struct {
		Cameras []api.Camera `json:"cameras"`
	}
	if err := client.getJSON(ctx, "/api/v1/video/cameras", nil, &answer); err != nil {
		return err
	}
	if v.JSON {
		return c.printJSON(answer.Cameras)
	}
	return cameraTable(answer.Cameras, time.Now()).print(c)
}

func (v *videoListCommand) recordings(ctx context.Context, c *console, client *client, query url.Values) error {
	var answer struct {
		Recordings []api.Recording `json:"recordings"`
	}
	path := "/api/v1/video/cameras/" + url.PathEscape(v.Camera) + "/recordings"
	if err := client.getJSON(ctx, path, query, &answer); err != nil {
		return err
	}
	if v.JSON {
		return c.printJSON(answer.Recordings)
	}
	t := &table{header: []string{"START", "END", "LENGTH", "FRAGMENTS", "FRAMES", "SIZE", "LOST"}}
	for _, r := range answer.Recordings {
		t.add(r.Start.UTC().Format(api.ArrivalLayout), r.End.UTC().Format(api.ArrivalLayout),
			durationText(r.End.Sub(r.Start)), strconv.Itoa(r.Fragments), number(r.Frames), sizeText(r.Bytes), number(r.LostPackets))
	}
	return t.print(c)
}

func cameraTable(cameras []api.Camera, now time.Time) *table {
	t := &table{header: []string{"CAMERA", "TYPE", "STATE", "STREAM", "CODEC", "FRAMES", "LOST", "FRAGMENTS", "LAST"}}
	for _, cam := range cameras {
		t.add(cam.Name, cam.Type, stateText(cam.Part), cam.Stream, cam.Codec, number(cam.Frames),
			number(cam.LostPackets), number(cam.Fragments), agoText(cam.LastFragment, now))
	}
	return t
}

type videoClipCommand struct {
	online
	Camera string `arg:"" help:"The camera."`
	From   string `required:"" placeholder:"TIME" help:"Where the clip begins; RFC 3339, or 5m for that long ago."`
	To     string `default:"0s" placeholder:"TIME" help:"Where it ends (now)."`
	Output string `short:"o" required:"" placeholder:"FILE.mp4" help:"The file to write; - for standard output."`
	JSON   bool   `help:"Print JSON."`
}

func (v *videoClipCommand) Run(ctx context.Context, c *console) error {
	query, err := timeQuery(v.From, v.To)
	if err != nil {
		return err
	}
	client, err := v.client()
	if err != nil {
		return err
	}
	response, err := client.get(ctx, "/clip/"+url.PathEscape(v.Camera)+".mp4", query)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if v.Output == "-" {
		if _, err := io.Copy(c.stdout, response.Body); err != nil {
			return failed(fmt.Errorf("read the clip: %w", err), "what was written is not a whole clip")
		}
		return nil
	}
	size, err := writeWhole(v.Output, response.Body)
	if err != nil {
		return failed(fmt.Errorf("write %s: %w", v.Output, err), "")
	}
	if v.JSON {
		return c.printJSON(map[string]any{"camera": v.Camera, "file": v.Output, "bytes": size})
	}
	_, err = fmt.Fprintf(c.stdout, "%s: %s\n", v.Output, sizeText(size))
	return err
}

// writeWhole copies content to name, which appears only when it is whole.
func writeWhole(name string, content io.Reader) (size int64, err error) {
	file, err := os.CreateTemp(filepath.Dir(name), ".weir-*"+filepath.Ext(name))
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	size, err = io.Copy(file, content)
	if err = errors.Join(err, file.Chmod(0o644), file.Close()); err != nil {
		return size, err
	}
	return size, os.Rename(file.Name(), name)
}

// timeQuery checks two optional times and makes them start and end.
func timeQuery(from, to string) (url.Values, error) {
	query := url.Values{}
	for _, flag := range []struct{ name, parameter, text string }{{"--from", "start", from}, {"--to", "end", to}} {
		if flag.text == "" {
			continue
		}
		if _, err := api.ParseTime(flag.text, time.Now()); err != nil {
			return nil, usage(fmt.Errorf("%s: %w", flag.name, err), "")
		}
		query.Set(flag.parameter, flag.text)
	}
	return query, nil
}
