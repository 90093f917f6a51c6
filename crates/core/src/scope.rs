//! The path of the module being run, kept for messages: `encoder.layers.3.fc`.
//!
//! Layers enter a scope around their `forward`. It costs a push and a pop on a thread-local stack, and is read only when an
//! error is made or a profile is taken. A layer that knows its whole path enters it as such, whatever called it.

use std::cell::RefCell;
use std::sync::Arc;

enum Entry {
    /// Below the entry before.
    Name(String),
    /// From the root.
    Path(Arc<str>),
}

thread_local! {
    static PATH: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
}

/// Leaves its scope when dropped. See [`enter`].
pub struct Scope(());

/// Enters the module called `name` until the returned guard is dropped.
#[must_use = "the scope ends when the guard is dropped"]
pub fn enter(name: &str) -> Scope {
    PATH.with_borrow_mut(|p| p.push(Entry::Name(name.to_owned())));
    Scope(())
}

/// Enters the module whose whole path is `path` until the returned guard is dropped.
#[must_use = "the scope ends when the guard is dropped"]
pub fn enter_path(path: &Arc<str>) -> Scope {
    PATH.with_borrow_mut(|p| p.push(Entry::Path(path.clone())));
    Scope(())
}

impl Drop for Scope {
    fn drop(&mut self) {
        PATH.with_borrow_mut(|p| p.pop());
    }
}

/// The current path, names joined by dots; empty outside every module.
pub fn path() -> String {
    PATH.with_borrow(|p| {
        let root = p.iter().rposition(|e| matches!(e, Entry::Path(_))).unwrap_or(0);
        let names: Vec<&str> = p[root..]
            .iter()
            .map(|e| match e {
                Entry::Name(name) => name.as_str(),
                Entry::Path(path) => path,
            })
            .filter(|n| !n.is_empty())
            .collect();
        names.join(".")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_path_replaces_what_it_was_called_from() {
        let _a = enter("a");
        let b = enter("b");
        assert_eq!(path(), "a.b");
        let c = enter_path(&"net.c".into());
        let d = enter("d");
        assert_eq!(path(), "net.c.d");
        drop(d);
        drop(c);
        assert_eq!(path(), "a.b");
        drop(b);
        assert_eq!(path(), "a");
    }
}
