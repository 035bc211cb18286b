//! The sources, parsed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

/// One file of `src`.
pub(crate) struct Source {
    /// Below `src`.
    pub(crate) path: PathBuf,
    /// The module that the file is, `["feed", "line"]` for `feed/line/mod.rs`; the crate itself has no names.
    pub(crate) module: Vec<String>,
    /// The code without its tests and comments.
    pub(crate) code: String,
    /// The paths that the code names, as they are written: `["crate", "model", "tick"]`.
    pub(crate) paths: BTreeSet<Vec<String>>,
    /// What `use` brings into the module from its children, with the name it has here.
    pub(crate) brought: Vec<(String, Vec<String>)>,
    /// Functions, with the number of their lines.
    pub(crate) functions: Vec<(String, usize)>,
    /// Structs, with the number of their fields and how many of them are `pub(super)` or `pub(in …)`.
    pub(crate) structs: Vec<(String, usize, usize)>,
    /// Types, traits and aliases that are `pub` or `pub(crate)`.
    pub(crate) shared_types: Vec<String>,
}

impl Source {
    /// The folder of `src` that it is in, or its own name.
    pub(crate) fn top(&self) -> &str {
        match self.module.first() {
            Some(first) => first,
            None if self.path.ends_with("main.rs") => "main",
            None => "lib",
        }
    }

    /// Whether its file is this one or in this folder.
    pub(crate) fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }
}

/// Every Rust file below these folders of the repository.
pub(crate) fn rust_files(below: &[&str]) -> Vec<PathBuf> {
    files(below, &["rs"])
}

/// Every file below these folders of the repository whose name ends so.
pub(crate) fn files(below: &[&str], extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = below.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| extensions.iter().any(|extension| e == *extension)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All of `src`, parsed once.
pub(crate) fn sources() -> &'static [Source] {
    static SOURCES: OnceLock<Vec<Source>> = OnceLock::new();
    SOURCES.get_or_init(|| {
        let found: Vec<Source> = rust_files(&["src"]).iter().map(|path| read(path)).collect();
        assert!(found.len() > 40, "only {} files", found.len());
        found
    })
}

fn read(path: &Path) -> Source {
    let text = std::fs::read_to_string(path).expect("a readable file");
    let inside = path.strip_prefix(root().join("src")).expect("under src").to_owned();
    parsed(&inside, &text)
}

/// Parses the text of a file at `path` below `src`.
pub(crate) fn parsed(path: &Path, text: &str) -> Source {
    let mut file = syn::parse_file(text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let is_test = path.ends_with("tests.rs") || path.ends_with("model.rs");
    // Loom's models and unit tests.
    file.items.retain(|item| !is_test && !is_tests(item));
    let mut module: Vec<String> =
        path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    module.pop_if(|last| last == "mod" || last == "lib" || last == "main");
    let mut collector = Collector { lines: text.lines().collect(), ..Collector::default() };
    collector.visit_file(&file);
    let Collector { paths, brought, functions, structs, shared_types, .. } = collector;
    let code = if is_test { String::new() } else { code_of(&file, text) };
    Source { path: path.to_owned(), module, code, paths, brought, functions, structs, shared_types }
}

/// A test of a file.
pub(crate) struct Test {
    pub(crate) name: String,
    /// Why it is ignored, if it is; empty without a reason.
    pub(crate) ignored_for: Option<String>,
    /// The lines of its body.
    pub(crate) body: String,
}

/// The tests of a file, those in modules as well; not those within macros.
pub(crate) fn tests_of(text: &str) -> Vec<Test> {
    struct Tests<'a>(Vec<&'a str>, Vec<Test>);
    impl<'ast> Visit<'ast> for Tests<'_> {
        fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
            if item.attrs.iter().any(|attr| attr.path().is_ident("test")) {
                let ignore = item.attrs.iter().find(|attr| attr.path().is_ident("ignore"));
                let ignored_for = ignore.map(|attr| match &attr.meta {
                    syn::Meta::NameValue(syn::MetaNameValue {
                        value: syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(reason), .. }),
                        ..
                    }) => reason.value(),
                    _ => String::new(),
                });
                let span = item.block.span();
                let body = self.0[span.start().line - 1..span.end().line].join("\n");
                self.1.push(Test { name: item.sig.ident.to_string(), ignored_for, body });
            }
        }
    }
    let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{error}"));
    let mut tests = Tests(text.lines().collect(), Vec::new());
    tests.visit_file(&file);
    tests.1
}

/// A module of tests.
fn is_tests(item: &syn::Item) -> bool {
    let syn::Item::Mod(module) = item else { return false };
    let is_cfg_test = |attr: &syn::Attribute| {
        attr.path().is_ident("cfg")
            && attr.meta.require_list().is_ok_and(|list| list.tokens.to_string().contains("test"))
    };
    module.content.is_some() && module.attrs.iter().any(is_cfg_test)
}

/// The lines of the items that are left, without comments.
fn code_of(file: &syn::File, text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut code = String::new();
    for item in &file.items {
        let span = item.span();
        for line in &lines[span.start().line - 1..span.end().line] {
            if !line.trim_start().starts_with("//") {
                code.push_str(line.split(" // ").next().unwrap_or(""));
                code.push('\n');
            }
        }
    }
    code
}

#[derive(Default)]
struct Collector<'a> {
    lines: Vec<&'a str>,
    paths: BTreeSet<Vec<String>>,
    brought: Vec<(String, Vec<String>)>,
    functions: Vec<(String, usize)>,
    structs: Vec<(String, usize, usize)>,
    shared_types: Vec<String>,
}

impl Collector<'_> {
    fn function(&mut self, name: &syn::Ident, start: proc_macro2::Span, end: proc_macro2::Span) {
        let lines = self.lines[start.start().line - 1..end.end().line].iter();
        let lines = lines.filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//"));
        self.functions.push((name.to_string(), lines.count()));
    }

    fn type_named(&mut self, name: &syn::Ident, visibility: &syn::Visibility) {
        let is_shared = match visibility {
            syn::Visibility::Public(_) => true,
            syn::Visibility::Restricted(to) => to.in_token.is_none() && to.path.is_ident("crate"),
            syn::Visibility::Inherited => false,
        };
        if is_shared {
            self.shared_types.push(name.to_string());
        }
    }

    fn tree(&mut self, tree: &syn::UseTree, before: &[String]) {
        let with = |ident: &syn::Ident| [before, &[ident.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.tree(&path.tree, &with(&path.ident)),
            syn::UseTree::Name(name) => self.bring(name.ident.to_string(), with(&name.ident)),
            syn::UseTree::Rename(rename) => self.bring(rename.rename.to_string(), with(&rename.ident)),
            syn::UseTree::Glob(_) => self.bring("*".to_owned(), before.to_vec()),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree, before)),
        }
    }

    fn bring(&mut self, name: String, path: Vec<String>) {
        let name = if name == "self" { path[path.len() - 2].clone() } else { name };
        self.brought.push((name, path.clone()));
        self.paths.insert(path);
    }

    /// Paths within a macro, which is not parsed.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.end(&mut path);
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.end(&mut path);
                    self.tokens(group.stream());
                }
                _ => self.end(&mut path),
            }
        }
        self.end(&mut path);
    }

    fn end(&mut self, path: &mut Vec<String>) {
        if path.len() > 1 {
            self.paths.insert(std::mem::take(path));
        }
        path.clear();
    }
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.paths.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        self.tokens(mac.tokens.clone());
        visit::visit_macro(self, mac);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig.ident, item.sig.span(), item.block.span());
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig.ident, item.sig.span(), item.block.span());
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        let restricted = item.fields.iter().filter(|f| matches!(f.vis, syn::Visibility::Restricted(_)));
        self.structs.push((item.ident.to_string(), item.fields.len(), restricted.count()));
        self.type_named(&item.ident, &item.vis);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.type_named(&item.ident, &item.vis);
        visit::visit_item_enum(self, item);
    }

    fn visit_item_union(&mut self, item: &'ast syn::ItemUnion) {
        self.type_named(&item.ident, &item.vis);
        visit::visit_item_union(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.type_named(&item.ident, &item.vis);
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.type_named(&item.ident, &item.vis);
        visit::visit_item_type(self, item);
    }
}
