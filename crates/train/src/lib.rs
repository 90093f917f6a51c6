//! The trainer of Gradus: callbacks, checkpoints, logs.
