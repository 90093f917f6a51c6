//! The context of a forward pass: whether it trains, and where its randomness comes from.

use crate::module::{Entry, EntryMut, Module};
use crate::{Layer, Param, Site, State};
use gradus_core::autodiff::is_recomputing;
use gradus_core::error::or_raise;
use gradus_core::scope::{self, Scope};
use gradus_core::{Key, Result, Tensor};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a forward pass is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Training: dropout drops, running statistics move.
    Train,
    /// Everything else: the same input gives the same output.
    Eval,
}

/// What a forward pass is told beside its input: its [`Mode`], and keys for random numbers.
///
/// A key is a pure function of (seed, step, stream, how many keys the stream gave before in this pass), where a layer's
/// stream is its path in the model. So a mask does not depend on what other layers do, and a resumed run draws what an
/// uninterrupted one would have drawn. One context serves one pass (or all passes of one step).
///
/// ```
/// use gradus_nn::{Cx, Dropout, Layer};
/// use gradus_core::Tensor;
///
/// let (drop, x) = (Dropout::new(0.5), Tensor::ones([4, 4], gradus_cpu::device()));
/// assert_eq!(drop.call(&x, &Cx::eval()).to_vec::<f32>()?, [1.0; 16]);
/// let (a, b) = (drop.call(&x, &Cx::train(7, 0)), drop.call(&x, &Cx::train(7, 0)));
/// assert_eq!(a.to_vec::<f32>()?, b.to_vec::<f32>()?); // the same seed and step: the same mask
/// # Ok::<(), gradus_core::Error>(())
/// ```
pub struct Cx {
    mode: Mode,
    key: Key,
    /// How many keys each stream has given.
    given: Mutex<HashMap<Arc<str>, u64>>,
    observer: Option<Observer>,
    hooks: Vec<Hook>,
}

type Observer = Arc<dyn Fn(&Call<'_>) + Send + Sync>;
type Hook = Arc<dyn Fn(&Call<'_>) -> Option<Tensor> + Send + Sync>;

/// A layer's call, as an observer sees it.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The layer's note of its place, if it keeps one.
    pub site: Option<&'a Site>,
    /// The layer's type.
    pub kind: &'static str,
    /// What it gave.
    pub output: &'a Tensor,
}

impl Cx {
    /// A training pass of the given step. The key is a seed, or a [`Key`].
    pub fn train(key: impl Into<Key>, step: u32) -> Cx {
        Cx::new(Mode::Train, key.into().at(step))
    }
    /// A pass that does not train.
    pub fn eval() -> Cx {
        Cx::new(Mode::Eval, Key::new(0))
    }
    /// A pass with this key as it is: its step may be a cell that the host advances ([`Key::at_slot`]).
    pub fn new(mode: Mode, key: Key) -> Cx {
        Cx { mode, key, given: Mutex::default(), observer: None, hooks: Vec::new() }
    }
    /// This context with `observer` called after each layer's call, inner layers first. (Not for the second run of a
    /// checkpointed block.)
    pub fn observing(mut self, observer: impl Fn(&Call<'_>) + Send + Sync + 'static) -> Cx {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// This context with a forward hook: called after each layer's call, inner layers first; a tensor that it gives takes the
    /// place of the layer's output. Several are called in the order given here, each with what the one before it left. (In the
    /// second run of a checkpointed block too: a hook must be a pure function.) In PyTorch: `register_module_forward_hook`.
    ///
    /// ```
    /// use gradus_core::Tensor;
    /// use gradus_nn::{Cx, Layer, Relu};
    /// let cx = Cx::eval().hooked(|call| (call.kind == "Relu").then(|| call.output * 2.0));
    /// let y = Relu.call(&Tensor::from_slice(&[-1f32, 3.0], gradus_cpu::device()), &cx);
    /// assert_eq!(y.to_vec::<f32>()?, [0.0, 6.0]);
    /// # Ok::<(), gradus_core::Error>(())
    /// ```
    pub fn hooked(mut self, hook: impl Fn(&Call<'_>) -> Option<Tensor> + Send + Sync + 'static) -> Cx {
        self.hooks.push(Arc::new(hook));
        self
    }

    /// What the pass is for.
    pub fn mode(&self) -> Mode {
        self.mode
    }
    /// Whether it trains.
    pub fn is_training(&self) -> bool {
        self.mode == Mode::Train
    }

    /// The next key of a stream. A layer's stream is its site's: `cx.key(self.site.stream())`.
    pub fn key(&self, stream: &str) -> Key {
        let mut given = lock(&self.given);
        let n = match given.get_mut(stream) {
            Some(n) => {
                *n += 1;
                *n
            }
            None => {
                given.insert(stream.into(), 0);
                0
            }
        };
        self.key.fold(stream).fold_in(n)
    }

    /// Moves a running statistic: takes the value that `change` gives for the one it has. Nothing happens in evaluation, nor
    /// in the second run of a checkpointed block, whose first run has done it.
    pub fn update(&self, state: &State, change: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<()> {
        if self.is_training() && !is_recomputing() { state.change(change) } else { Ok(()) }
    }

    /// Enters a module, until the guard is dropped: errors name its path, or, if it has none, its type.
    ///
    /// [`Layer::call`] does this; a module whose forward takes other arguments does it itself.
    pub fn enter<M: Module + ?Sized>(&self, module: &M) -> Scope {
        match module.site().and_then(Site::path) {
            Some(path) => scope::enter_path(path),
            None => scope::enter(module.kind()),
        }
    }
    /// Tells the observer, if there is one, what a module gave.
    pub fn observe<M: Module + ?Sized>(&self, module: &M, output: &Tensor) {
        if let Some(observer) = self.observer.as_ref().filter(|_| !is_recomputing()) {
            observer(&Call { site: module.site(), kind: module.kind(), output });
        }
    }

    /// A module's output as the hooks leave it, of which the observer is told. A module whose forward takes other arguments than a
    /// [`Layer`]'s ends with this.
    pub fn passed<M: Module + ?Sized>(&self, module: &M, mut output: Tensor) -> Tensor {
        for hook in &self.hooks {
            if let Some(new) = hook(&Call { site: module.site(), kind: module.kind(), output: &output }) {
                output = new;
            }
        }
        self.observe(module, &output);
        output
    }

    /// Calls a layer, keeping of what it computes only its input and output: backward runs it again (activation
    /// checkpointing). Random masks are the same in both runs, and running statistics move once.
    ///
    /// The graph shares the layer's parameters: drop the loss before the optimizer's step, or they are copied for it.
    #[track_caller]
    pub fn checkpoint<L: Layer + Clone + 'static>(&self, layer: &L, x: &Tensor) -> Tensor {
        let layer = alias(layer);
        let start = self.fork();
        let path: Arc<str> = scope::path().into();
        let after = Arc::new(Mutex::new(None));
        let first_run = after.clone();
        let block = move |x: &[Tensor]| {
            let _scope = scope::enter_path(&path);
            let cx = start.fork();
            let y = layer.call(&x[0], &cx);
            if !is_recomputing() {
                *lock(&first_run) = Some(lock(&cx.given).clone());
            }
            Ok(y)
        };
        let y = or_raise(gradus_core::autodiff::try_checkpoint(block, &[x]));
        // The streams go on from where the block left them.
        if let Some(given) = lock(&after).take() {
            *lock(&self.given) = given;
        }
        y
    }

    /// Whether hooks or an observer want to see what layers give.
    pub fn is_watched(&self) -> bool {
        !self.hooks.is_empty() || self.observer.is_some()
    }

    /// A context that gives the keys that this one would give from here on.
    fn fork(&self) -> Cx {
        let given = Mutex::new(lock(&self.given).clone());
        Cx { mode: self.mode, key: self.key.clone(), given, observer: self.observer.clone(), hooks: self.hooks.clone() }
    }
}

impl fmt::Debug for Cx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cx").field("mode", &self.mode).field("key", &self.key).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section only moves whole values in and out.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same module under a second handle: its parameters are the same leaves, its states the same cells.
fn alias<M: Module + Clone>(module: &M) -> M {
    enum Leaf {
        Param(Param),
        State(State),
    }
    let mut leaves = Vec::new();
    module.for_each(&mut |_, e| match e {
        Entry::Parameter(p) => leaves.push(Leaf::Param(p.alias())),
        Entry::State(s) => leaves.push(Leaf::State(s.alias())),
        Entry::Site(_) => {}
    });
    let mut copy = module.clone();
    let mut leaves = leaves.into_iter();
    copy.for_each_mut(&mut |_, e| match e {
        EntryMut::Parameter(p) => {
            if let Some(Leaf::Param(leaf)) = leaves.next() {
                *p = leaf;
            }
        }
        EntryMut::State(s) => {
            if let Some(Leaf::State(leaf)) = leaves.next() {
                *s = leaf;
            }
        }
        EntryMut::Site(_) => {}
    });
    copy
}
