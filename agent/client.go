package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/weir-edge/weir/agent/api"
)

// online are the flags of commands that talk to a running weir.
type online struct {
	API       string `name:"api" env:"WEIR_API" default:"http://127.0.0.1:8080" placeholder:"URL" help:"Where the API of weir is (${default})."`
	TokenFile string `name:"token-file" env:"WEIR_TOKEN_FILE" placeholder:"FILE" help:"File with the API's token."`
}

// client talks to the API.
type client struct {
	base  string
	token string
	http  *http.Client
}

func (o online) client() (*client, error) {
	base, err := url.Parse(o.API)
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" {
		return nil, usage(fmt.Errorf("--api %q is not an address", o.API), "write it as http://127.0.0.1:8080")
	}
	c := &client{base: strings.TrimSuffix(base.String(), "/"), http: &http.Client{
		Transport: &http.Transport{ResponseHeaderTimeout: 60 * time.Second, Proxy: nil},
	}}
	if o.TokenFile != "" {
		token, err := os.ReadFile(o.TokenFile)
		if err != nil {
			return nil, usage(fmt.Errorf("read the token: %w", err), "")
		}
		c.token = strings.TrimSpace(string(token))
	}
	return c, nil
}

// do sends a request and returns the answer if it is a success; the caller
// closes its body.
func (c *client) do(request *http.Request) (*http.Response, error) {
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		if ctx := request.Context(); ctx.Err() != nil {
			return nil, failed(errors.New("interrupted"), "")
		}
		return nil, failed(fmt.Errorf("no weir answers at %s: %w", c.base, unwrapURL(err)), "start it with weir run -c FILE, or point --api or WEIR_API at it")
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	var fault api.Fault
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil || json.Unmarshal(body, &fault) != nil || fault.Error == "" {
		return nil, failed(fmt.Errorf("%s answers %s", c.base, response.Status), "is it the API of weir?")
	}
	if response.StatusCode == http.StatusBadRequest {
		return nil, usage(errors.New(fault.Error), fault.Hint)
	}
	if response.StatusCode == http.StatusUnauthorized {
		fault.Hint = "give the token with --token-file"
	}
	return nil, failed(errors.New(fault.Error), fault.Hint)
}

// get asks for path, which begins with a slash; the caller closes the body.
func (c *client) get(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, usage(err, "")
	}
	return c.do(request)
}

// getJSON decodes the answer to path into answer.
func (c *client) getJSON(ctx context.Context, path string, query url.Values, answer any) error {
	response, err := c.get(ctx, path, query)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(answer); err != nil {
		return failed(fmt.Errorf("read the answer of %s: %w", c.base, err), "is it the API of weir?")
	}
	return nil
}

// unwrapURL drops the address that net/http puts before its errors.
func unwrapURL(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}
