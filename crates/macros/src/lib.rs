//! The derive macro of Gradus modules.
