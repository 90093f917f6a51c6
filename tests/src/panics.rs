//! Panics caught, with their message and the line that they name.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Set while this thread expects a panic: what the hook noted of it.
    static NOTED: RefCell<Option<Option<(String, u32)>>> = const { RefCell::new(None) };
}

/// A caught panic.
#[derive(Debug)]
pub struct Caught {
    /// What it says.
    pub message: String,
    /// The file that it names.
    pub file: String,
    /// The line that it names.
    pub line: u32,
}

/// The message of a panic's payload.
pub fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_else(|| "not a text".into())
}

/// Runs `f`, and gives its panic instead of printing it; `None` if it did not panic.
pub fn caught<T>(f: impl FnOnce() -> T) -> Option<Caught> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let expected = NOTED.with_borrow_mut(|noted| match noted {
                Some(place) => {
                    *place = info.location().map(|l| (l.file().to_owned(), l.line()));
                    true
                }
                None => false,
            });
            if !expected {
                before(info);
            }
        }));
    });
    NOTED.with_borrow_mut(|noted| *noted = Some(None));
    let outcome = catch_unwind(AssertUnwindSafe(f));
    let noted = NOTED.with_borrow_mut(Option::take).flatten();
    let panic = outcome.err()?;
    let (file, line) = noted.unwrap_or_default();
    Some(Caught { message: message(&*panic), file, line })
}
