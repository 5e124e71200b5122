package buffer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/weir-edge/weir/buffer/disk"
)

// formatVersion is the version of everything FORMAT.md describes.
const formatVersion = 1

const (
	versionFile = "VERSION"
	dataDir     = "data"
	spareDir    = "spare"
	indexDir    = "index"
	damagedDir  = "damaged"
)

// Index entries wait in memory until there are indexThreshold of them, or
// indexBytes of segments would have to be read again after a crash; over
// indexLimit, commits wait for them to be written. Few large writes, because
// each one costs Badger a sync of a memory map, which some kernels turn into a
// megabyte.
const (
	indexThreshold = 4096
	indexBytes     = 64 << 20
	indexLimit     = 64 * 1024
)

// Options are what Open needs besides the configuration.
type Options struct {
	// Logger gets what an operator should know. Nil: nothing is logged.
	Logger *slog.Logger
	// Streams are made, or given these policies, before Open returns.
	Streams map[string]StreamConfig

	// For tests of this package.
	files disk.FS
	kv    func(rebuild bool) (kv, error)
	clock func() instant
	quiet bool // no background work but the committers
	// segmentBytes is the size of data segments, 0: by the budget.
	segmentBytes int64
	// pause is how long a chain rests after that many failed commits.
	pause func(failures int) time.Duration

	damagedIndex error // why the index is not to be believed
}

// Log is a shard log. All its methods are safe for concurrent use.
type Log struct {
	config Config
	log    *slog.Logger
	files  disk.FS
	kv     kv
	clock  *ageClock
	lock   io.Closer
	quiet  bool
	fixed  int64 // size of data segments in tests
	pause  func(failures int) time.Duration

	handles handles
	zstd    *zstd.Decoder

	mu         sync.RWMutex
	closed     bool
	streams    map[string]*streamState
	byNumber   map[uint32]*streamState
	shards     map[shardNumber]*shardState
	chains     map[string]*chain
	segments   map[segmentID]*segment
	unsummed   []*segment // sealed, not yet in Badger
	unindexed  int64      // bytes of batches that are not yet in Badger
	consumers  map[string]*consumerState
	gaps       []Gap
	lastCommit time.Time

	streamMu sync.Mutex // one change of the catalogue at a time
	metaMu   sync.Mutex
	meta     metaWriter
	flushMu  sync.Mutex
	lastMark string

	spaceMu     sync.Mutex // one decision about disk space at a time
	spares      []spare
	spareNumber uint64
	space       diskUse
	shown       atomic.Pointer[diskUse] // of space, for when spaceMu is taken

	pendingMu sync.Mutex
	pending   int64 // bytes of appends under way

	room      signal      // memory for appends was given back
	indexRoom signal      // index entries were written
	news      signal      // something was committed
	dirty     signal      // a consumer changed
	spaceDue  chan *chain // it will need another segment soon
	indexDue  signal      // index entries wait

	counters   counters
	newest     seen // newest clock stamp found by recovery
	rebuilt    bool
	distrust   bool            // the catalogue was damaged
	catalogued map[uint32]bool // numbers of the streams it knew; for recovery
	setAside   []string
	recovered  int64

	committers sync.WaitGroup
	keepers    sync.WaitGroup
	ending     chan struct{} // closed when Close begins: committers wait for nothing any more
	stop       chan struct{} // closed when the committers are done
}

// Open opens the log in config.Dir, or makes one there: the directory itself
// is made, its parent must exist. It recovers from whatever a power cut or a
// crash left, keeps what is sound and logs what is not. Errors: ErrLocked and
// ErrNewer, with nothing touched, and what the operating system says of a
// directory that cannot be written.
func Open(ctx context.Context, config Config, options Options) (*Log, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	l, err := openOnce(ctx, config, options)
	if errors.Is(err, errIndexDamaged) {
		// Badger opened, but what it holds is not what was written.
		options.damagedIndex = err
		l, err = openOnce(ctx, config, options)
	}
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", config.Dir, err)
	}
	return l, nil
}

func openOnce(ctx context.Context, config Config, options Options) (*Log, error) {
	l, err := prepare(config, options)
	if err != nil {
		return nil, err
	}
	if err := l.open(ctx, options); err != nil {
		return nil, errors.Join(err, l.abandon())
	}
	return l, nil
}

// prepare takes the directory: it makes it, checks its version, locks it.
func prepare(config Config, options Options) (*Log, error) {
	l := &Log{
		config: config, log: options.Logger, files: options.files, quiet: options.quiet, fixed: options.segmentBytes, pause: options.pause,
		streams: map[string]*streamState{}, byNumber: map[uint32]*streamState{},
		shards: map[shardNumber]*shardState{}, chains: map[string]*chain{},
		segments: map[segmentID]*segment{}, consumers: map[string]*consumerState{},
		stop: make(chan struct{}), ending: make(chan struct{}), spaceDue: make(chan *chain, 1),
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.pause == nil {
		l.pause = func(failures int) time.Duration {
			return min(10*time.Second, 50*time.Millisecond<<min(failures, 8))
		}
	}
	l.handles = handles{log: l, open: map[segmentID]*handle{}}
	read := options.clock
	if read == nil {
		read = systemClock()
	}
	l.clock = startAgeClock(read, seen{})
	if l.files != nil {
		l.meta.files = l.files
		return l, nil
	}
	if err := os.Mkdir(config.Dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := checkVersion(config.Dir); err != nil {
		return nil, err
	}
	lock, err := disk.Lock(config.Dir)
	if errors.Is(err, disk.ErrLocked) {
		return nil, ErrLocked
	}
	if err != nil {
		return nil, err
	}
	l.lock = lock
	if l.files, err = disk.Dir(config.Dir); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	l.meta.files = l.files
	return l, nil
}

// checkVersion refuses a directory that a newer weir made, or that is not a
// log at all, before anything is touched.
func checkVersion(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, versionFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var version int
	if _, err := fmt.Sscanf(string(b), "weir log %d", &version); err != nil || string(b) != versionLine(version) {
		// Torn or flipped; the segments carry their version too.
		return nil
	}
	if version > formatVersion {
		return fmt.Errorf("%w: format %d, this one knows %d", ErrNewer, version, formatVersion)
	}
	return nil
}

// versionLine is the content of the version file: the version and a checksum,
// so that a flipped bit is not taken for a newer weir.
func versionLine(version int) string {
	line := fmt.Sprintf("weir log %d", version)
	return fmt.Sprintf("%s %08x\n", line, checksum([]byte(line)))
}

// open recovers the log and starts its goroutines.
func (l *Log) open(ctx context.Context, options Options) error {
	var err error
	if l.zstd, err = newUnpacker(); err != nil {
		return err
	}
	if err := l.layOut(); err != nil {
		return err
	}
	if err := l.recoverMeta(); err != nil {
		return err
	}
	if err := l.openIndex(options); err != nil {
		return err
	}
	if err := l.recoverChains(ctx); err != nil {
		return err
	}
	l.clock = startAgeClock(l.clock.read, l.newest)
	l.finishRecovery()
	if err := l.assignChains(); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(options.Streams)) {
		if err := l.CreateStream(ctx, name, options.Streams[name]); err != nil {
			return err
		}
	}
	l.spaceMu.Lock()
	l.lookAtDisk()
	use := l.space
	l.shown.Store(&use)
	l.spaceMu.Unlock()
	if !l.quiet {
		l.keepers.Add(2)
		go l.keepPlaces()
		go l.keepSpace()
	}
	return nil
}

// layOut makes the directories and the version file.
func (l *Log) layOut() error {
	for _, dir := range []string{metaDir, dataDir, spareDir} {
		if err := l.files.Mkdir(dir); err != nil {
			return err
		}
	}
	file, err := l.files.OpenFile(versionFile, disk.Create)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = file.WriteAt([]byte(versionLine(formatVersion)), 0)
	return errors.Join(err, file.Sync(), file.Close(), l.files.SyncDir("."))
}

// openIndex opens Badger. A directory that does not open is set aside, not
// deleted, and the index is made anew from the segments.
func (l *Log) openIndex(options Options) error {
	open := options.kv
	dir := filepath.Join(l.config.Dir, indexDir)
	if open == nil {
		open = func(bool) (kv, error) { return openBadger(dir) }
	}
	err := options.damagedIndex
	if err == nil {
		var store kv
		if store, err = open(false); err == nil {
			l.kv = store
			if err = l.loadConsumers(); err == nil {
				return nil
			}
			err = errors.Join(err, store.Close())
			l.kv = nil
		}
	}
	if options.kv != nil {
		l.log.Error("the index is damaged; it is made anew", "error", err)
	} else if err := l.setAsideIndex(dir, err); err != nil {
		return err
	}
	store, err := open(true)
	if err != nil {
		return fmt.Errorf("make a new index: %w", err)
	}
	l.kv = store
	l.rebuilt = true
	return nil
}

func (l *Log) setAsideIndex(dir string, why error) error {
	if err := l.files.Mkdir(damagedDir); err != nil {
		return err
	}
	_, now := l.clock.now()
	to := path.Join(damagedDir, "index-"+now.wall.UTC().Format("20060102T150405.000000000"))
	l.log.Error("the index is damaged; it is set aside and made anew from the segments", "directory", to, "error", why)
	if err := l.files.Rename(indexDir, to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set aside %s: %w", dir, err)
	}
	l.setAside = append(l.setAside, to)
	return nil
}

// chainFor returns the chain of a policy, making it if need be. streamMu is
// held, or Open runs.
func (l *Log) chainFor(p chainPolicy) (*chain, error) {
	name := p.name()
	l.mu.RLock()
	c := l.chains[name]
	var number uint32
	for _, o := range l.chains {
		number = max(number, o.number)
	}
	l.mu.RUnlock()
	if c != nil {
		l.mu.Lock()
		c.policy = p
		l.mu.Unlock()
		return c, nil
	}
	if err := l.files.Mkdir(path.Join(dataDir, name)); err != nil {
		return nil, fmt.Errorf("make chain %s: %w", name, err)
	}
	if err := l.files.SyncDir(dataDir); err != nil {
		return nil, fmt.Errorf("make chain %s: %w", name, err)
	}
	err := l.metaAppend(func() {
		c = l.addChain(name, number+1)
		c.policy = p
	}, metaEntry{Chain: &metaChain{Number: number + 1, Name: name}})
	if err != nil {
		return nil, fmt.Errorf("make chain %s: %w", name, err)
	}
	l.startChain(c)
	return c, nil
}

// assignChains gives each recovered stream the chain of its policy.
func (l *Log) assignChains() error {
	for _, name := range slices.Sorted(maps.Keys(l.streams)) {
		st := l.streams[name]
		c, err := l.chainFor(policyOf(name, st.config()))
		if err != nil {
			return err
		}
		st.chain = c
	}
	return nil
}

// addChain takes a chain into memory. Log.mu is held, or Open runs.
func (l *Log) addChain(name string, number uint32) *chain {
	c := l.chains[name]
	if c == nil {
		c = &chain{log: l, number: number, name: name, policy: parseChainName(name), wake: make(chan struct{}, 1)}
		l.chains[name] = c
	}
	return c
}

func (l *Log) startChain(c *chain) {
	l.committers.Add(1)
	go func() {
		defer l.committers.Done()
		c.run()
	}()
}

// Close stops taking appends, commits those under way, writes the index and
// closes everything. Later calls of any method return ErrClosed.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	l.closed = true
	l.mu.Unlock()
	err := l.shut()
	if err != nil {
		return fmt.Errorf("close log %s: %w", l.config.Dir, err)
	}
	return nil
}

// shut ends the goroutines and writes what is only in memory.
func (l *Log) shut() error {
	l.streamMu.Lock()
	defer l.streamMu.Unlock()
	close(l.ending)
	for _, c := range l.chains {
		c.close()
	}
	l.committers.Wait()
	close(l.stop)
	l.keepers.Wait()
	return errors.Join(l.flushIndex(), l.flushConsumers(), l.copyConsumers(), l.letGo())
}

// abandon is for a log that did not open: nothing more is written.
func (l *Log) abandon() error {
	for _, c := range l.chains {
		c.close()
	}
	l.committers.Wait() // those that were started; none has anything to do
	return l.letGo()
}

// letGo closes files, store and lock.
func (l *Log) letGo() error {
	var errs []error
	if l.kv != nil {
		errs = append(errs, l.kv.Close())
	}
	l.handles.close()
	if l.meta.writer != nil {
		errs = append(errs, l.meta.writer.file.Close())
	}
	if l.zstd != nil {
		l.zstd.Close()
	}
	if l.lock != nil {
		errs = append(errs, l.lock.Close())
	}
	l.news.broadcast()
	return errors.Join(errs...)
}

// keepPlaces writes what may be written late: index entries when enough wait,
// consumers at most once a second, their copies at most every ten.
func (l *Log) keepPlaces() {
	defer l.keepers.Done()
	var flush, copied <-chan time.Time
	for {
		due, dirty := l.indexDue.wait(), l.dirty.wait()
		l.mu.RLock()
		waiting, stale := l.indexDueLocked(), l.consumersDirtyLocked()
		l.mu.RUnlock()
		if stale && flush == nil {
			flush = time.After(time.Second)
		}
		if stale && copied == nil {
			copied = time.After(10 * time.Second)
		}
		if waiting {
			l.complain("index", l.flushIndex())
			select {
			case <-l.stop:
				return
			default:
				continue
			}
		}
		select {
		case <-l.stop:
			return
		case <-due:
		case <-dirty:
		case <-flush:
			flush = nil
			l.complain("index", l.flushConsumers())
		case <-copied:
			copied = nil
			l.complain("meta chain", l.copyConsumers())
		}
	}
}

func (l *Log) consumersDirtyLocked() bool {
	for _, c := range l.consumers {
		if c.stored != c.version {
			return true
		}
	}
	return false
}

// complain logs a failure of the background work, which will be tried again.
func (l *Log) complain(what string, err error) {
	if err == nil {
		return
	}
	l.counters.writeErrors.Add(1)
	l.log.Error("writing failed; it will be tried again", "what", what, "error", err)
	select { // a failing disk is not asked again at once
	case <-l.stop:
	case <-time.After(time.Second):
	}
}

// indexIfNeeded wakes the index writer, and waits for it when too much is
// still only in memory.
func (l *Log) indexIfNeeded() {
	for {
		room := l.indexRoom.wait()
		l.mu.RLock()
		n, due := l.pendingIndexLocked(), l.indexDueLocked()
		l.mu.RUnlock()
		if !due || l.quiet {
			return
		}
		l.indexDue.broadcast()
		if n < indexLimit {
			return
		}
		select {
		case <-room:
		case <-l.ending:
			return
		}
	}
}

func (l *Log) has(id segmentID) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.segments[id] != nil
}

func (l *Log) segmentPath(id segmentID) string {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if s := l.segments[id]; s != nil {
		return s.path
	}
	return fmt.Sprintf("segment %d of chain %d", id.number, id.chain)
}

// setTrouble remembers why appends of a chain are refused, or that they are
// not any more.
func (l *Log) setTrouble(c *chain, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	l.mu.Lock()
	before := c.trouble
	c.trouble = text
	l.mu.Unlock()
	switch {
	case before == "" && text != "":
		l.log.Error("appends are refused", "chain", c.name, "error", err)
	case before != "" && text == "":
		l.log.Info("appends are accepted again", "chain", c.name)
	}
}

// reportCorrupt counts and logs a batch that cannot be read, and remembers
// the gap, so that it is told once in the log and to every reader.
func (l *Log) reportCorrupt(s *shardState, ref *batchRef, err *CorruptError) {
	_, now := l.clock.now()
	g := Gap{
		Stream: s.stream.name, Shard: s.number.shard, From: ref.first, To: ref.next() - 1,
		Bytes: int64(ref.length), Reason: GapCorrupt, At: now.wall,
	}
	l.mu.Lock()
	fresh := l.keepGap(g)
	l.mu.Unlock()
	if fresh {
		l.counters.corrupt.Add(1)
		l.counters.drop(GapCorrupt, int64(ref.count), int64(ref.length))
		l.log.Error("a batch cannot be read", "stream", g.Stream, "shard", g.Shard.String(), "from", g.From, "to", g.To, "error", err)
	}
}
