//! Where the derive's user has the `nn` crate: as `gradus_nn`, or as `gradus::nn` through the facade.

use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;

/// The path of the `nn` crate as the crate being compiled knows it. It is looked up in that crate's manifest; a crate that
/// renamed it says so by `#[module(crate = path)]`.
pub fn nn() -> TokenStream {
    let package = std::env::var("CARGO_PKG_NAME").unwrap_or_default();
    let manifest = std::env::var("CARGO_MANIFEST_DIR").ok().map(|dir| std::path::Path::new(&dir).join("Cargo.toml"));
    let manifest = manifest.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let direct = package == "gradus-nn" || (package != "gradus" && depends(&manifest, "gradus-nn"));
    if direct {
        let name = Ident::new("gradus_nn", Span::call_site());
        quote!(::#name)
    } else {
        quote!(::gradus::nn)
    }
}

/// Whether a manifest names `package` among its dependencies, of whatever kind.
fn depends(manifest: &str, package: &str) -> bool {
    let mut in_dependencies = false;
    manifest.lines().map(str::trim).any(|line| {
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']').trim();
            in_dependencies = header.ends_with("dependencies");
            // `[dependencies.package]`
            return header
                .rsplit_once('.')
                .is_some_and(|(table, key)| table.ends_with("dependencies") && unquoted(key) == package);
        }
        // `package = ..` or `package.workspace = ..`
        let key = line.split(['=', '.']).next().unwrap_or_default();
        in_dependencies && unquoted(key) == package
    })
}

fn unquoted(key: &str) -> &str {
    key.trim().trim_matches(['"', '\''])
}

#[cfg(test)]
mod tests {
    use super::depends;

    #[test]
    fn every_way_to_write_a_dependency_is_found() {
        for manifest in [
            "[dependencies]\ngradus-nn = \"0.1\"",
            "[dependencies]\nserde = \"1\"\n\"gradus-nn\".workspace = true",
            "[dependencies.gradus-nn]\nversion = \"0.1\"",
            "[target.'cfg(unix)'.dependencies]\n gradus-nn={ path = \"x\" }",
            "[dev-dependencies]\n# a comment\ngradus-nn.workspace = true",
        ] {
            assert!(depends(manifest, "gradus-nn"), "{manifest}");
        }
    }

    #[test]
    fn what_is_no_dependency_is_not_found() {
        for manifest in [
            "[package]\nname = \"gradus-nn\"",
            "[features]\ngradus-nn = []",
            "[dependencies]\ngradus = \"0.1\"",
            "[dependencies]\ngradus-nn-extra = \"1\"",
        ] {
            assert!(!depends(manifest, "gradus-nn"), "{manifest}");
        }
    }
}
