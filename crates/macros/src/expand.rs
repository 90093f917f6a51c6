//! The impl that the derive writes.

use crate::attributes::{Container, Part};
use crate::names;
use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use std::collections::BTreeSet;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Field, Fields, Generics, Ident, Result, parse_quote};

/// `impl Module for` the type of `input`.
pub fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let container = Container::read(&input.attrs)?;
    let nn = container.krate.as_ref().map_or_else(names::nn, |path| quote!(#path));
    let body = match &input.data {
        Data::Struct(data) => Body::of_struct(&data.fields, &nn)?,
        Data::Enum(data) => Body::of_enum(data, &nn)?,
        Data::Union(_) => {
            return Err(Error::new(
                input.ident.span(),
                "a union has no parts that could be visited: derive `Module` on a struct or enum",
            ));
        }
    };
    let (name, kind) = (&input.ident, input.ident.to_string());
    let generics = bounded(&input.generics, &nn);
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
    let Body { visit, visit_mut, site } = body;
    let describe = container.describe.map(|path| {
        quote! {
            fn describe(&self) -> ::std::string::String { #path(self) }
        }
    });
    let site = site.map(|site| {
        quote! {
            fn site(&self) -> ::core::option::Option<&#nn::Site> { #site }
        }
    });
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics #nn::Module for #name #ty_generics #where_clause {
            fn kind(&self) -> &'static str { #kind }
            #describe
            #site
            #[allow(unused_variables)]
            fn visit<'__a>(&'__a self, v: &mut dyn #nn::Visitor<'__a>) { #visit }
            #[allow(unused_variables)]
            fn visit_mut<'__a>(&'__a mut self, v: &mut dyn #nn::VisitorMut<'__a>) { #visit_mut }
        }
    })
}

/// Every type parameter has to be a module, as every field has to be one.
fn bounded(generics: &Generics, nn: &TokenStream) -> Generics {
    let mut generics = generics.clone();
    let bound: syn::TypeParamBound = parse_quote!(#nn::Module);
    for parameter in generics.type_params_mut() {
        parameter.bounds.push(bound.clone());
    }
    generics
}

/// The bodies of the methods.
struct Body {
    visit: TokenStream,
    visit_mut: TokenStream,
    site: Option<TokenStream>,
}

impl Body {
    fn of_struct(fields: &Fields, nn: &TokenStream) -> Result<Body> {
        let calls = Calls::of(fields, nn)?;
        let Calls { pattern, visit, visit_mut, site } = calls;
        Ok(Body {
            visit: quote! { let Self #pattern = self; #visit },
            visit_mut: quote! { let Self #pattern = self; #visit_mut },
            site: site.map(|site| quote! { let Self #pattern = self; ::core::option::Option::Some(#site) }),
        })
    }

    /// One arm a variant. A variant of one unnamed field is what it holds; its name is no part of a path.
    fn of_enum(data: &syn::DataEnum, nn: &TokenStream) -> Result<Body> {
        let (mut visit, mut visit_mut) = (TokenStream::new(), TokenStream::new());
        for variant in &data.variants {
            let transparent = matches!(&variant.fields, Fields::Unnamed(f) if f.unnamed.len() == 1);
            let calls =
                if transparent { Calls::transparent(&variant.fields, nn) } else { Calls::of(&variant.fields, nn)? };
            let (name, pattern) = (&variant.ident, &calls.pattern);
            let (by_ref, by_mut) = (&calls.visit, &calls.visit_mut);
            visit.extend(quote! { Self::#name #pattern => { #by_ref } });
            visit_mut.extend(quote! { Self::#name #pattern => { #by_mut } });
        }
        if data.variants.is_empty() {
            return Ok(Body { visit: quote!(match *self {}), visit_mut: quote!(match *self {}), site: None });
        }
        Ok(Body { visit: quote!(match self { #visit }), visit_mut: quote!(match self { #visit_mut }), site: None })
    }
}

/// The calls for the fields of a struct or variant, which `pattern` binds.
struct Calls {
    pattern: TokenStream,
    visit: TokenStream,
    visit_mut: TokenStream,
    site: Option<Ident>,
}

impl Calls {
    fn of(fields: &Fields, nn: &TokenStream) -> Result<Calls> {
        let mut calls =
            Calls { pattern: TokenStream::new(), visit: TokenStream::new(), visit_mut: TokenStream::new(), site: None };
        let (mut bindings, mut taken, mut faults) = (Vec::new(), BTreeSet::new(), None::<Error>);
        for (i, field) in fields.iter().enumerate() {
            // The binding has the type's place, because an error points at the expression that it is.
            let binding = format_ident!("__field{i}", span = place(field));
            bindings.push(match &field.ident {
                Some(ident) => quote!(#ident: #binding),
                None => quote!(#binding),
            });
            let name = field
                .ident
                .as_ref()
                .map_or_else(|| i.to_string(), |ident| ident.to_string().trim_start_matches("r#").to_owned());
            // Every fault of the struct is reported, not the first alone.
            if let Err(e) = calls.add(field, &name, &binding, &mut taken, nn) {
                match &mut faults {
                    Some(all) => all.combine(e),
                    none => *none = Some(e),
                }
            }
        }
        if let Some(e) = faults {
            return Err(e);
        }
        calls.pattern = match fields {
            Fields::Named(_) => quote!({ #(#bindings),* }),
            Fields::Unnamed(_) => quote!((#(#bindings),*)),
            Fields::Unit => TokenStream::new(),
        };
        Ok(calls)
    }

    fn transparent(fields: &Fields, nn: &TokenStream) -> Calls {
        let mut calls =
            Calls { pattern: TokenStream::new(), visit: TokenStream::new(), visit_mut: TokenStream::new(), site: None };
        for field in fields {
            let binding = format_ident!("__field0", span = place(field));
            calls.pattern = quote!((#binding));
            calls.flatten(field, &binding, nn);
        }
        calls
    }

    fn add(
        &mut self,
        field: &Field,
        name: &str,
        binding: &Ident,
        taken: &mut BTreeSet<String>,
        nn: &TokenStream,
    ) -> Result<()> {
        match Part::read(field, name)? {
            Part::Skip => {}
            Part::Flatten => self.flatten(field, binding, nn),
            Part::Site => {
                self.flatten(field, binding, nn);
                if self.site.replace(binding.clone()).is_some() {
                    return Err(Error::new(field.ty.span(), "a layer stands in one place: this is its second `Site`"));
                }
            }
            Part::Named(name) => {
                if !taken.insert(name.clone()) {
                    let at = field.ident.as_ref().map_or(field.ty.span(), Ident::span);
                    return Err(Error::new(at, format!("two fields go by the name `{name}`")));
                }
                let at = place(field);
                self.visit.extend(quote_spanned!(at=> v.child(#name, #binding);));
                self.visit_mut.extend(quote_spanned!(at=> v.child(#name, #binding);));
            }
        }
        Ok(())
    }

    fn flatten(&mut self, field: &Field, binding: &Ident, nn: &TokenStream) {
        let at = place(field);
        self.visit.extend(quote_spanned!(at=> #nn::Module::visit(#binding, v);));
        self.visit_mut.extend(quote_spanned!(at=> #nn::Module::visit_mut(#binding, v);));
    }
}

/// Errors point at the field's type; names are resolved as in the rest of the impl, also in a struct that a macro wrote.
fn place(field: &Field) -> Span {
    field.ty.span().resolved_at(Span::call_site())
}
