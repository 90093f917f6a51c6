//! The attributes of types and fields, read and checked.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::{Attribute, Error, Field, LitStr, Path, Result, Type};

/// What the attributes of a type say.
#[derive(Default)]
pub struct Container {
    /// `describe = path`: a function from `&Self` to the words that a table shows.
    pub describe: Option<Path>,
    /// `crate = path`: where the `nn` crate is.
    pub krate: Option<Path>,
}

impl Container {
    pub fn read(attributes: &[Attribute]) -> Result<Container> {
        let mut container = Container::default();
        for attribute in attributes.iter().filter(|a| a.path().is_ident("module")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("describe") {
                    once(&mut container.describe, meta.value()?.parse()?, meta.path.span())
                } else if meta.path.is_ident("crate") {
                    once(&mut container.krate, meta.value()?.parse()?, meta.path.span())
                } else {
                    Err(meta.error("a type knows `describe = path` and `crate = path`; `skip`, `rename` and `flatten` stand on fields"))
                }
            })?;
        }
        Ok(container)
    }
}

/// How a field takes part.
pub enum Part {
    /// It does not.
    Skip,
    /// Under a name.
    Named(String),
    /// Its parts stand beside the struct's own.
    Flatten,
    /// It is the layer's own note of its place.
    Site,
}

impl Part {
    /// What `field`, which goes by `name` unless told otherwise, is to its struct.
    pub fn read(field: &Field, name: &str) -> Result<Part> {
        let (mut skip, mut flatten, mut rename) = (None, None, None);
        for attribute in field.attrs.iter().filter(|a| a.path().is_ident("module")) {
            attribute.parse_nested_meta(|meta| {
                let at = meta.path.span();
                if meta.path.is_ident("skip") {
                    once(&mut skip, at, at)
                } else if meta.path.is_ident("flatten") {
                    once(&mut flatten, at, at)
                } else if meta.path.is_ident("rename") {
                    once(&mut rename, meta.value()?.parse::<LitStr>()?, at)
                } else {
                    Err(meta.error("a field knows `skip`, `rename = \"name\"` and `flatten`"))
                }
            })?;
        }
        match (skip, flatten, rename) {
            (Some(_), None, None) => Ok(Part::Skip),
            (None, Some(_), None) => Ok(Part::Flatten),
            (None, None, Some(name)) => checked(name).map(Part::Named),
            (None, None, None) if is_site(&field.ty) => Ok(Part::Site),
            (None, None, None) => Ok(Part::Named(name.to_owned())),
            (Some(at), _, _) | (_, Some(at), _) => {
                Err(Error::new(at, "`skip`, `rename` and `flatten` exclude each other"))
            }
        }
    }
}

fn once<T>(slot: &mut Option<T>, value: T, at: Span) -> Result<()> {
    if slot.replace(value).is_some() {
        return Err(Error::new(at, "given twice"));
    }
    Ok(())
}

fn checked(name: LitStr) -> Result<String> {
    let text = name.value();
    if text.is_empty() || text.contains('.') {
        return Err(Error::new(
            name.span(),
            "a part's name is not empty and has no dot: dots separate the names of a path",
        ));
    }
    Ok(text)
}

/// Whether a type is written `Site`, however it is qualified.
fn is_site(ty: &Type) -> bool {
    matches!(ty, Type::Path(p) if p.path.segments.last().is_some_and(|s| s.ident == "Site" && s.arguments.is_none()))
}
