package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// The limits of the house style. Aim lower: 70 lines a function, 600 a file,
// three methods, four parameters, three levels.
const (
	maxFunctionLines = 150
	maxFileLines     = 900
	maxTestFileLines = 900
	maxMethods       = 5
	maxParameters    = 5
	maxNesting       = 5
	minPackageLines  = 5
	maxPackageLines  = 30
)

// exceptions are places that may break a rule, with the reason.
var exceptions = map[string]string{
	"../buffer/disk/disk.go:File":             "three of its methods are those of io",
	"../buffer/read.go:Closings":              "a query of plain values, as the interface Reader has it",
	"../buffer/buffertest/memory.go:Closings": "the same, as the interface has it",
}

// TestLimits holds every Go file against the house style.
func TestLimits(t *testing.T) {
	sizes := &sizes{packages: map[string]int{}}
	err := filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && (strings.HasPrefix(e.Name(), ".") && e.Name() != ".." || e.Name() == "testdata" || e.Name() == "dist") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") {
			lintFile(t, path, sizes)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, lines := range sizes.packages {
		if dir != filepath.Join("..", "agent") && (lines < minPackageLines || lines > maxPackageLines) {
			t.Errorf("%s: the package comment has %d lines, not %d to %d", dir, lines, minPackageLines, maxPackageLines)
		}
	}
	t.Logf("files %s", percentiles(sizes.files))
	t.Logf("functions %s", percentiles(sizes.functions))
}

// sizes are what TestLimits counts, in lines and tests aside.
type sizes struct {
	packages         map[string]int // the package comment
	files, functions []int
}

// percentiles tells the tail, which an average hides.
func percentiles(list []int) string {
	if len(list) == 0 {
		return "none"
	}
	slices.Sort(list)
	at := func(p int) int { return list[(len(list)-1)*p/100] }
	return fmt.Sprintf("%d: half up to %d lines, 90 %% %d, 99 %% %d, the longest %d", len(list), at(50), at(90), at(99), at(100))
}

func complain(t *testing.T, place, format string, args ...any) {
	t.Helper()
	if exceptions[place] == "" {
		t.Errorf("%s: %s", place, fmt.Sprintf(format, args...))
	}
}

func lintFile(t *testing.T, path string, sizes *sizes) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, text, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	test := strings.HasSuffix(path, "_test.go")
	lines := files.File(file.Pos()).LineCount()
	if limit := map[bool]int{false: maxFileLines, true: maxTestFileLines}[test]; lines > limit {
		complain(t, path, "%d lines are over %d", lines, limit)
	}
	if !test {
		dir := filepath.Dir(path)
		sizes.packages[dir] = max(sizes.packages[dir], commentLines(file.Doc))
		sizes.files = append(sizes.files, lines)
	}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if !test {
				sizes.functions = append(sizes.functions, files.Position(d.End()).Line-files.Position(d.Pos()).Line+1)
			}
			lintFunction(t, files, path, d, test)
		case *ast.GenDecl:
			lintDeclaration(t, path, d, test)
		}
	}
	// In a bubble of synctest a sleep takes no time.
	bubble := slices.ContainsFunc(file.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"testing/synctest"` })
	lintCalls(t, files, path, file, test && !bubble)
}

func commentLines(c *ast.CommentGroup) int {
	if c == nil {
		return 0
	}
	return strings.Count(strings.TrimSpace(c.Text()), "\n") + 1
}

func lintFunction(t *testing.T, files *token.FileSet, path string, f *ast.FuncDecl, test bool) {
	place := path + ":" + f.Name.Name
	if lines := files.Position(f.End()).Line - files.Position(f.Pos()).Line + 1; lines > maxFunctionLines {
		complain(t, place, "%d lines are over %d", lines, maxFunctionLines)
	}
	if f.Name.Name == "init" && f.Recv == nil {
		complain(t, place, "no init: who needs something makes it")
	}
	if n := f.Type.Params.NumFields(); n > maxParameters && !test {
		complain(t, place, "%d parameters are over %d; make a struct", n, maxParameters)
	}
	if !test && f.Name.IsExported() && f.Doc == nil && exportedReceiver(f) && !standardMethod(f) {
		complain(t, place, "an exported name without its contract")
	}
	if f.Body != nil {
		if n := nesting(f.Body, 0); n > maxNesting {
			complain(t, place, "%d levels of nesting are over %d", n, maxNesting)
		}
	}
}

// standardMethod: methods whose contract the standard library has written.
func standardMethod(f *ast.FuncDecl) bool {
	return f.Recv != nil && slices.Contains([]string{"Error", "Unwrap", "String", "Close", "Len", "Less", "Swap", "Is", "As"}, f.Name.Name)
}

func exportedReceiver(f *ast.FuncDecl) bool {
	if f.Recv == nil {
		return true
	}
	expr := f.Recv.List[0].Type
	if star, ok := expr.(*ast.StarExpr); ok {
		expr = star.X
	}
	name, ok := expr.(*ast.Ident)
	return ok && name.IsExported()
}

func lintDeclaration(t *testing.T, path string, d *ast.GenDecl, test bool) {
	enumeration := false // its type has the contract
	for _, spec := range d.Specs {
		v, ok := spec.(*ast.ValueSpec)
		enumeration = enumeration || ok && d.Tok == token.CONST && v.Type != nil
		if ok && !test && !enumeration && v.Names[0].IsExported() && d.Doc == nil && v.Doc == nil && v.Comment == nil {
			complain(t, path+":"+v.Names[0].Name, "an exported name without its contract")
		}
		s, ok := spec.(*ast.TypeSpec)
		if !ok {
			continue
		}
		place := path + ":" + s.Name.Name
		if !test && s.Name.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
			complain(t, place, "an exported name without its contract")
		}
		if i, ok := s.Type.(*ast.InterfaceType); ok && i.Methods.NumFields() > maxMethods {
			complain(t, place, "%d methods are over %d", i.Methods.NumFields(), maxMethods)
		}
	}
}

// nesting counts blocks within blocks; an else-if is no deeper than its if.
func nesting(n ast.Node, depth int) int {
	deepest := depth
	ast.Inspect(n, func(c ast.Node) bool {
		if c == nil || c == n {
			return true
		}
		var inner []ast.Node
		switch c := c.(type) {
		case *ast.IfStmt:
			deepest = max(deepest, nesting(c.Body, depth+1))
			if other, ok := c.Else.(*ast.IfStmt); ok {
				deepest = max(deepest, nesting(&ast.BlockStmt{List: []ast.Stmt{other}}, depth))
			} else if c.Else != nil {
				deepest = max(deepest, nesting(c.Else, depth+1))
			}
			return false
		case *ast.ForStmt:
			inner = []ast.Node{c.Body}
		case *ast.RangeStmt:
			inner = []ast.Node{c.Body}
		case *ast.SwitchStmt:
			inner = []ast.Node{c.Body}
		case *ast.TypeSwitchStmt:
			inner = []ast.Node{c.Body}
		case *ast.SelectStmt:
			inner = []ast.Node{c.Body}
		case *ast.FuncLit:
			deepest = max(deepest, nesting(c.Body, depth))
			return false
		default:
			return true
		}
		for _, b := range inner {
			deepest = max(deepest, nesting(b, depth+1))
		}
		return false
	})
	return deepest
}

// lintCalls looks for what is never to be called.
func lintCalls(t *testing.T, files *token.FileSet, path string, file *ast.File, test bool) {
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		place := fmt.Sprintf("%s:%d", path, files.Position(call.Pos()).Line)
		switch f := call.Fun.(type) {
		case *ast.Ident:
			if f.Name == "panic" && !test {
				complain(t, place, "no panic")
			}
		case *ast.SelectorExpr:
			x, ok := f.X.(*ast.Ident)
			if !ok {
				return true
			}
			switch name := x.Name + "." + f.Sel.Name; {
			case test && name == "time.Sleep":
				complain(t, place, "no sleep in a test: synctest, a channel, or polling with a deadline")
			case test && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, f.Sel.Name):
				complain(t, place, "no skipping: a test that needs a program says how to get it and fails")
			case name == "slog.Default" || name == "slog.SetDefault":
				complain(t, place, "no default logger: it is a parameter")
			}
		}
		return true
	})
}

var (
	documentPath = regexp.MustCompile("`([a-zA-Z0-9_.-]+(?:/[a-zA-Z0-9_.*-]+)+/?|[A-Z]+\\.md|Makefile)`")
	makeTarget   = regexp.MustCompile("(?m)(?:`|^    |^\\$ )make ([a-z]+)")
	weirCommand  = regexp.MustCompile("(?m)(?:`|^    |^\\$ |bin/)weir ([a-z]+)")
	wholeTest    = regexp.MustCompile("`(Test[A-Z][A-Za-z]*)`")
)

// elsewhere are first parts of paths that documents name and that are not in
// this repository: what weir makes, and other people's.
var elsewhere = []string{
	"meta", "data", "spare", "index", "damaged", "sensors", "devices", "etc", "var", "proc", "sys", "run", "api", "clip", "text",
	"application", "go.uber.org", "github.com", "eclipse", "linux", "CHAIN", "DIR", "NODE", "nats-io", "gw-17", "bin", "dist", "video", "weir", "lib", "usr",
}

// TestDocuments checks that what the documents name exists: paths, make
// targets, commands, tests.
func TestDocuments(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	tests := testNames(t)
	err = filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".md") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range documentPath.FindAllStringSubmatch(string(text), -1) {
			checkPath(t, path, m[1])
		}
		for _, m := range makeTarget.FindAllStringSubmatch(string(text), -1) {
			if !strings.Contains(string(makefile), "\n"+m[1]+":") {
				t.Errorf("%s: there is no make %s", path, m[1])
			}
		}
		for _, m := range weirCommand.FindAllStringSubmatch(string(text), -1) {
			if !isCommand(m[1]) {
				t.Errorf("%s: there is no weir %s", path, m[1])
			}
		}
		for _, m := range wholeTest.FindAllStringSubmatch(string(text), -1) {
			if !tests[m[1]] {
				t.Errorf("%s: there is no %s", path, m[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checkPath(t *testing.T, document, name string) {
	t.Helper()
	name = strings.TrimSuffix(strings.TrimSuffix(name, "..."), "/")
	for _, base := range []string{"..", filepath.Dir(document)} {
		if found, err := filepath.Glob(filepath.Join(base, name)); err == nil && len(found) > 0 {
			return
		}
	}
	if first, _, _ := strings.Cut(name, "/"); !slices.Contains(elsewhere, first) {
		t.Errorf("%s names %s, which is not there", document, name)
	}
}

// isCommand asks the command line's own model.
func isCommand(name string) bool {
	parser, err := kong.New(&commands{})
	if err != nil {
		return false
	}
	return slices.ContainsFunc(parser.Model.Children, func(n *kong.Node) bool { return n.Name == name })
}

func testNames(t *testing.T) map[string]bool {
	names := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]*)\(`)
	err := filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range function.FindAllStringSubmatch(string(text), -1) {
			names[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
