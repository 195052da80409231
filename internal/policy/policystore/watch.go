package policystore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// quiet is how long nothing must change before the files are read: editors
	// and kubelets write in several steps.
	quiet = 100 * time.Millisecond
	// atMost bounds the wait when something changes all the time.
	atMost = 2 * time.Second
	// rescan finds what inotify cannot see (a network file system, a directory
	// that did not exist) and goes on when a queue has overflowed.
	rescan = 30 * time.Second
)

// Watch loads the files again whenever they change, until ctx ends. It watches
// their directories, since editors replace files by rename and Kubernetes swaps
// a symbolic link beside them, and both ends of symbolic links. It returns an
// error only when watching itself cannot start; that files are broken is told to
// OnLoad.
func (s *Store) Watch(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("policy files cannot be watched: %w; raise fs.inotify.max_user_instances, or send SIGHUP after changes", err)
	}
	defer w.Close()
	watched := make(map[string]bool)
	if err := s.follow(w, watched); err != nil {
		return err
	}
	// What changed between the last load and the watch would be missed.
	_, _ = s.load(true) // OnLoad has been told

	ticker := time.NewTicker(rescan)
	defer ticker.Stop()
	settle := newTimer()
	defer settle.Stop()
	var since time.Time // of the first change that has not been read
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-w.Events:
			if !ok {
				return errors.New("policy files are watched no more: the watcher closed")
			}
			if since.IsZero() {
				since = time.Now()
			}
			settle.Reset(max(0, min(quiet, atMost-time.Since(since))))
		case _, ok := <-w.Errors: // an overflow: something changed
			if !ok {
				return errors.New("policy files are watched no more: the watcher closed")
			}
			settle.Reset(quiet)
		case <-settle.C:
			since = time.Time{}
			s.reread(w, watched)
		case <-ticker.C:
			s.reread(w, watched)
		}
	}
}

func newTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// reread loads and then looks where the links lead now.
func (s *Store) reread(w *fsnotify.Watcher, watched map[string]bool) {
	_ = s.follow(w, watched) // a directory that is gone: the load below says so
	_, _ = s.load(true)      // OnLoad has been told
}

// follow watches the directories that matter now and no others.
func (s *Store) follow(w *fsnotify.Watcher, watched map[string]bool) error {
	want := make(map[string]bool)
	for _, p := range s.Paths {
		for _, dir := range directories(p) {
			want[dir] = true
		}
	}
	for dir := range watched {
		if !want[dir] || !slices.Contains(w.WatchList(), dir) {
			_ = w.Remove(dir) // gone already when the directory is
			delete(watched, dir)
		}
	}
	for dir := range want {
		if watched[dir] {
			continue
		}
		if err := w.Add(dir); err != nil {
			return fmt.Errorf("%s cannot be watched: %w; make it readable, or send SIGHUP after changes", dir, err)
		}
		watched[dir] = true
	}
	return nil
}

// directories are those whose change can change what a path leads to: its own,
// that of each link on the way, and that of the file in the end.
func directories(path string) []string {
	dirs := []string{filepath.Dir(path)}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		dirs = append(dirs, filepath.Dir(real))
	}
	if real, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		dirs = append(dirs, real)
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}
