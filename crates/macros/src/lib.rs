//! The derive macro of Gradus modules: `#[derive(Module)]`. Its user's manual is the documentation of `gradus_nn::Module`.
//!
//! One field, one rule: it is visited under its name, unless an attribute says otherwise. Which types can be visited is not
//! decided here but by the trait, whose impls cover containers and plain data; so a wrong type is reported at the field, in
//! the trait's words.

mod attributes;
mod expand;
mod names;

use proc_macro::TokenStream;

/// Implements `Module`: every field is a part of the model under the field's name.
///
/// Attributes of a field: `#[module(skip)]`, `#[module(rename = "name")]`, `#[module(flatten)]`; of the type:
/// `#[module(describe = path)]`, `#[module(crate = path)]`. See `gradus_nn::Module`.
#[proc_macro_derive(Module, attributes(module))]
pub fn derive_module(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    expand::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
