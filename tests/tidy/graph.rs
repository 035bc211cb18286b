//! Which module names which: imports between the folders of `src`, and circles of files within one.

use std::collections::{BTreeMap, BTreeSet};

use super::source::Source;

/// A module, by its names.
type Module = Vec<String>;

/// The modules of the crate, and what each makes of a name.
pub(crate) struct Graph<'a> {
    sources: BTreeMap<&'a [String], &'a Source>,
}

impl<'a> Graph<'a> {
    pub(crate) fn of(sources: &'a [Source]) -> Self {
        // `main` is a crate of its own, which names this one `tickfan`.
        let modules = sources.iter().filter(|source| source.top() != "main");
        Self { sources: modules.map(|source| (source.module.as_slice(), source)).collect() }
    }

    /// The modules that a module names, itself not.
    pub(crate) fn named_by(&self, source: &Source) -> BTreeSet<Module> {
        let named = source.paths.iter().filter_map(|path| self.resolve(&source.module, path));
        named.filter(|module| *module != source.module).collect()
    }

    /// The module that a path leads to from a module: as far as it names modules.
    fn resolve(&self, from: &[String], path: &[String]) -> Option<Module> {
        let (mut at, mut names): (Module, &[String]) = match path.split_first()? {
            (first, rest) if first == "crate" => (Vec::new(), rest),
            (first, _) if first == "super" => {
                let ups = path.iter().take_while(|name| *name == "super").count();
                (from[..from.len().checked_sub(ups)?].to_vec(), &path[ups..])
            }
            (first, rest) if first == "self" => (from.to_vec(), rest),
            // A child, or another crate.
            (first, _) => {
                self.sources.get([from, std::slice::from_ref(first)].concat().as_slice())?;
                (from.to_vec(), path)
            }
        };
        while let Some((name, rest)) = names.split_first() {
            let child = [at.as_slice(), std::slice::from_ref(name)].concat();
            if self.sources.contains_key(child.as_slice()) {
                at = child;
            } else {
                // A name that the module has from one of its children stands for what is there.
                match self.of_child(&at, name) {
                    Some(child) => at = child,
                    None => break,
                }
            }
            names = rest;
        }
        Some(at)
    }

    fn of_child(&self, module: &[String], name: &str) -> Option<Module> {
        let source = self.sources.get(module)?;
        let (_, path) = source.brought.iter().find(|(brought, _)| brought == name)?;
        let path = if path[0] == "self" { &path[1..] } else { path };
        let child = [module, &path[..1]].concat();
        self.sources.contains_key(child.as_slice()).then_some(child)
    }

    /// Files that name each other in a circle, each circle by its modules. A module and those within it are one thing: they
    /// may name each other.
    pub(crate) fn circles(&self) -> BTreeSet<BTreeSet<String>> {
        let is_within = |a: &[String], b: &[String]| a.starts_with(b) || b.starts_with(a);
        let edges = |source: &&Source| {
            let named = self.named_by(source).into_iter();
            (source.module.clone(), named.filter(|module| !is_within(module, &source.module)).collect())
        };
        let edges: BTreeMap<Module, BTreeSet<Module>> = self.sources.values().map(edges).collect();
        let reached: BTreeMap<&Module, BTreeSet<&Module>> =
            edges.keys().map(|module| (module, reached(&edges, module))).collect();
        let circle = |module: &Module| -> BTreeSet<String> {
            let back = reached[module].iter().filter(|other| reached[**other].contains(module));
            back.map(|other| other.join("::")).collect()
        };
        edges.keys().map(circle).filter(|circle| !circle.is_empty()).collect()
    }
}

/// All that a module leads to.
fn reached<'a>(edges: &'a BTreeMap<Module, BTreeSet<Module>>, from: &Module) -> BTreeSet<&'a Module> {
    let (mut found, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(module) = open.pop() {
        for next in &edges[module] {
            if found.insert(next) {
                open.push(next);
            }
        }
    }
    found
}
