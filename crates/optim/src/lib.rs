//! Optimizers, schedules and gradient transforms of Gradus.
