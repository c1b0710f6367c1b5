//! The files of the web console, in the binary: no other machine is asked for any of them.
//!
//! They are built from web/ with Node when Cargo builds this crate. Without Node one page says how to get the console.
//! `FFMESH_CONSOLE=off` at build time leaves it out; `FFMESH_CONSOLE=required` makes it an error that it can't be built.

/// One file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asset {
    /// For `Content-Type`
    pub content_type: &'static str,
    /// For `ETag`, with its quotes: changes with the content
    pub etag: &'static str,
    /// The content
    pub bytes: &'static [u8],
    /// The same, compressed with gzip; none where that would save nothing
    pub gzip: Option<&'static [u8]>,
    /// Whether the name changes with the content, so that it may be kept for good
    pub hashed: bool,
}

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// The file at a path such as `/` or `/assets/index-1a2b3c.js`: that very name, or none.
pub fn asset(path: &str) -> Option<Asset> {
    let path = if path == "/" { "/index.html" } else { path };
    let index = ASSETS.binary_search_by_key(&path, |(name, _)| name).ok()?;
    Some(ASSETS[index].1)
}

/// Whether the console itself is there, and not the page that says how to get it.
pub fn is_built() -> bool {
    BUILT
}

/// The paths of all files.
pub fn paths() -> impl Iterator<Item = &'static str> {
    ASSETS.iter().map(|(path, _)| *path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_page_is_there_and_is_html() {
        let page = asset("/").expect("a page");
        assert_eq!(page.content_type, "text/html; charset=utf-8");
        assert_eq!(Some(page), asset("/index.html"));
        assert!(!page.hashed, "its name never changes, so nobody may keep it for good");
    }

    #[test]
    fn all_that_the_first_page_refers_to_is_there() {
        let page = std::str::from_utf8(asset("/").expect("a page").bytes).expect("text");
        let mut found = 0;
        for attribute in ["src=\"", "href=\""] {
            for rest in page.split(attribute).skip(1) {
                let path = rest.split('"').next().expect("an end");
                assert!(asset(path).is_some(), "{path} is missing");
                found += 1;
            }
        }
        assert!(found > 0, "the page has neither styles nor scripts");
    }

    #[test]
    fn the_pages_policy_has_no_reason_to_refuse_them() {
        for (path, asset) in ASSETS.iter().filter(|(_, asset)| asset.content_type.starts_with("text/html")) {
            let page = std::str::from_utf8(asset.bytes).expect("text");
            for forbidden in ["<style", " style=", "javascript:", " onload=", " onclick=", "http://", "//cdn"]
            {
                assert!(!page.contains(forbidden), "{path} has {forbidden}");
            }
            for script in page.split("<script").skip(1) {
                let (tag, rest) = script.split_once('>').expect("the end of the tag");
                assert!(tag.contains("src="), "{path} has a script without a file");
                assert!(rest.starts_with("</script>"), "{path} has a script of its own");
            }
        }
    }

    #[test]
    fn nothing_but_exact_names_leads_to_a_file() {
        for path in [
            "",
            "index.html",
            "/../Cargo.toml",
            "/assets/",
            "/assets/../index.html",
            "//index.html",
            "/index.html/",
            "/%2e%2e/",
        ] {
            assert_eq!(asset(path), None, "{path}");
        }
    }

    #[test]
    fn compressed_files_are_gzip_and_smaller() {
        for (path, asset) in ASSETS {
            if let Some(gzip) = asset.gzip {
                assert_eq!(gzip[..2], [0x1f, 0x8b], "{path}");
                assert!(gzip.len() < asset.bytes.len(), "{path}");
            }
        }
    }

    #[test]
    fn etags_tell_files_apart() {
        let mut etags: Vec<_> = ASSETS.iter().map(|(_, asset)| asset.etag).collect();
        etags.sort_unstable();
        etags.dedup();
        assert_eq!(etags.len(), ASSETS.len());
        assert!(etags.iter().all(|etag| etag.starts_with('"') && etag.ends_with('"') && etag.len() > 2));
    }
}
