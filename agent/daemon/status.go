package daemon

import (
	"github.com/weir-edge/weir/agent/api"
)

// Health says what keeps the node from being healthy. It implements api.Node.
func (d *Daemon) Health() api.Health {
	var problems []api.Problem
	if full := d.log.Stats().Full; full != "" {
		problems = append(problems, api.Problem{Part: "log", Reason: full})
	}
	visit := func(kind kind, p api.Part) {
		reason := ""
		switch p.State {
		case api.Running, api.Waiting:
			return
		case api.Starting:
			reason = "has not started yet"
		case api.Failed, api.Stopped:
			reason = string(p.State)
		}
		if p.Error != "" {
			reason = p.Error
		}
		problems = append(problems, api.Problem{Part: string(kind) + " " + p.Name, Reason: reason})
	}
	if p, _ := d.apiRun.snapshot(); p.State != api.Running || d.server.Address() == "" {
		problems = append(problems, api.Problem{Part: "api", Reason: orElse(p.Error, "does not listen yet")})
	}
	parts := d.Parts()
	for _, s := range parts.Sources {
		visit(sourceKind, s.Part)
	}
	for _, c := range parts.Cameras {
		visit(cameraKind, c.Part)
	}
	for _, q := range parts.Queries {
		visit(queryKind, q.Part)
	}
	for _, s := range parts.Sinks {
		visit(sinkKind, s.Part)
	}
	return api.Health{OK: len(problems) == 0, Problems: problems}
}

// Parts asks every part for its figures. It implements api.Node.
func (d *Daemon) Parts() api.Parts {
	d.mu.Lock()
	parts, cfg := d.parts, d.config
	d.mu.Unlock()
	out := api.Parts{ID: cfg.Node.ID, Labels: cfg.Node.Labels, Started: d.started}
	for _, p := range parts {
		life, current := p.snapshot()
		switch p.spec.kind {
		case sourceKind:
			var s api.Source
			if current.source != nil {
				s = current.source()
			}
			s.Part = merge(life, s.Part)
			out.Sources = append(out.Sources, s)
		case cameraKind:
			var c api.Camera
			if current.camera != nil {
				c = current.camera()
			}
			c.Part = merge(life, c.Part)
			out.Cameras = append(out.Cameras, c)
		case queryKind:
			var q api.Query
			if current.query != nil {
				q = current.query()
			}
			q.Part = merge(life, q.Part)
			out.Queries = append(out.Queries, q)
		case sinkKind:
			var s api.Sink
			if current.sink != nil {
				s = current.sink()
			}
			s.Part = merge(life, s.Part)
			out.Sinks = append(out.Sinks, s)
		case apiKind:
		}
	}
	return out
}

// merge takes the part's own word for its state while its supervisor only
// knows that it runs.
func merge(life, own api.Part) api.Part {
	if life.State != api.Running || own.State == "" {
		return life
	}
	life.State, life.Error = own.State, own.Error
	if !own.Since.IsZero() {
		life.Since = own.Since
	}
	return life
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}
