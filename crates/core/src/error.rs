//! The one error type, and how it reaches a user.
//!
//! Everything below the doorway returns [`Result`]. The everyday methods of a tensor turn an error into a panic at the
//! caller's own line; their `try_` twins hand it on. An error names the op, the module it happened in, every input's shape
//! and dtype, and what would have fitted.

use crate::dtype::DType;
use crate::shape::Shape;
use std::fmt;

/// The result of a fallible operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of thing went wrong, for programs that handle errors by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An op was called with shapes, dtypes, devices or arguments that do not fit.
    Misuse,
    /// The device cannot do this, or not with this dtype.
    Unsupported,
    /// Memory ran out, or a size was refused before it could.
    Memory,
    /// A device, driver or kernel failed, or is missing.
    Device,
    /// Data from outside (a file, a data set, a configuration) is not what it must be.
    Data,
    /// The operating system refused to read or write.
    Io,
}

/// An error of the library: small (one pointer), and complete enough to act on.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    op: Option<&'static str>,
    inputs: Vec<(DType, Shape)>,
    module: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of the given kind. The path of the module being run, if any, is noted.
    #[cold]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        let module = crate::scope::path();
        Error(Box::new(Inner { kind, message: message.into(), op: None, inputs: Vec::new(), module, source: None }))
    }

    /// Arguments that do not fit.
    #[cold]
    pub fn misuse(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Misuse, message)
    }

    /// Something that this device cannot do.
    #[cold]
    pub fn unsupported(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Unsupported, message)
    }

    /// Data from outside that is not what it must be.
    #[cold]
    pub fn data(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Data, message)
    }

    /// A failure to read or write `what`.
    #[cold]
    pub fn io(what: impl fmt::Display, source: std::io::Error) -> Error {
        Error::new(ErrorKind::Io, what.to_string()).caused_by(source)
    }

    /// This error with its cause kept as the [`source`](std::error::Error::source).
    pub fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        self.0.source = Some(Box::new(source));
        self
    }

    /// This error with the op it happened in and the inputs it was given, unless it already has them.
    #[cold]
    pub fn in_op(mut self, op: &'static str, inputs: impl IntoIterator<Item = (DType, Shape)>) -> Error {
        if self.0.op.is_none() {
            self.0.op = Some(op);
            self.0.inputs = inputs.into_iter().collect();
        }
        self
    }

    /// This error with `context` put before its message.
    #[cold]
    pub fn context(mut self, context: impl fmt::Display) -> Error {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The name of the op, where there is one.
    pub fn op(&self) -> Option<&'static str> {
        self.0.op
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &*self.0;
        if let Some(op) = e.op {
            write!(f, "{op}: ")?;
        }
        f.write_str(&e.message)?;
        if !e.inputs.is_empty() {
            f.write_str("; given ")?;
            for (i, (dtype, shape)) in e.inputs.iter().enumerate() {
                write!(f, "{}{dtype} {shape}", if i > 0 { ", " } else { "" })?;
            }
        }
        if !e.module.is_empty() {
            write!(f, " (in module {})", e.module)?;
        }
        if let Some(source) = &e.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f) // what `unwrap` and `main` print is what a person should read
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}

/// Panics with an error at the caller's line: how the everyday method of an op treats misuse.
#[cold]
#[track_caller]
pub fn raise(error: Error) -> ! {
    panic!("{error}")
}

/// The result's value, or a panic at the caller's line.
#[inline]
#[track_caller]
pub fn or_raise<T>(result: Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => raise(error),
    }
}

/// Writes a method in both its forms: the everyday one, which panics at the caller's line, and its `try_` twin.
///
/// ```ignore
/// fallible! {
///     /// What it computes.
///     pub fn matmul | try_matmul(&self, other: &Tensor) -> Tensor { ..a body that gives Result<Tensor>.. }
/// }
/// ```
#[macro_export]
macro_rules! fallible {
    ($(
        $(#[$meta:meta])*
        pub fn $name:ident | $try_name:ident $(<$($g:ident : $bound:path),+>)? (&$self:ident $(, $arg:ident : $ty:ty)* $(,)?) -> $ret:ty $body:block
    )*) => {$(
        $(#[$meta])*
        ///
        #[doc = concat!("Panics at the caller's line on misuse; [`", stringify!($try_name), "`](Self::", stringify!($try_name), ") returns the error instead.")]
        #[inline]
        #[track_caller]
        pub fn $name $(<$($g : $bound),+>)? (&$self $(, $arg : $ty)*) -> $ret {
            $crate::error::or_raise($self.$try_name($($arg),*))
        }
        #[doc = concat!("As [`", stringify!($name), "`](Self::", stringify!($name), "), with misuse returned as an error.")]
        #[track_caller]
        pub fn $try_name $(<$($g : $bound),+>)? (&$self $(, $arg : $ty)*) -> $crate::error::Result<$ret> $body
    )*};
}
