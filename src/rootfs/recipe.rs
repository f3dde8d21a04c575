//! Recipes of stacks: data that is built into the program, or a folder of the operator's own.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::Deserialize;

use super::RootfsError;
use crate::model::{RoutingPolicy, StackName};

/// What completes an image before it is packed, whatever the recipe.
pub(super) const COMPLETE: &str = include_str!("../../stacks/complete.sh");

/// Name, `stack.toml` and package lists.
const BUILT_IN: &[(&str, &str, &str, &str)] = &[
    (
        "cedar-12",
        include_str!("../../stacks/cedar-12/stack.toml"),
        include_str!("../../stacks/cedar-12/packages.txt"),
        include_str!("../../stacks/cedar-12/packages-build.txt"),
    ),
    (
        "cedar-13",
        include_str!("../../stacks/cedar-13/stack.toml"),
        include_str!("../../stacks/cedar-13/packages.txt"),
        include_str!("../../stacks/cedar-13/packages-build.txt"),
    ),
    (
        "cedar",
        include_str!("../../stacks/cedar/stack.toml"),
        "",
        "",
    ),
    (
        "bamboo",
        include_str!("../../stacks/bamboo/stack.toml"),
        "",
        "",
    ),
];

/// How a stack is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Of the stack.
    pub name: StackName,
    /// What it is, in a line.
    pub description: String,
    /// Debian's release.
    pub suite: String,
    /// As dpkg has it.
    pub architecture: String,
    /// In both images.
    pub packages: Vec<String>,
    /// In the build image only.
    pub build_packages: Vec<String>,
}

/// A name that stands for another stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The name.
    pub name: StackName,
    /// It stands for the stack with this prefix and the highest number.
    pub newest: String,
    /// Routing of its apps that set none.
    pub routing: Option<RoutingPolicy>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    description: String,
    suite: Option<String>,
    architecture: Option<String>,
    newest: Option<String>,
    routing: Option<String>,
}

enum Entry {
    Recipe(Recipe),
    Alias(Alias),
}

fn words(list: &str) -> Vec<String> {
    let lines = list
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    lines
        .flat_map(str::split_whitespace)
        .map(str::to_owned)
        .collect()
}

fn parse(name: &str, toml: &str, packages: &str, build: &str) -> Result<Entry, String> {
    let name: StackName = name.parse().map_err(|error| format!("{error}"))?;
    let file: File = toml::from_str(toml).map_err(|error| error.to_string())?;
    match (file.suite, file.newest) {
        (None, Some(newest)) => {
            let routing = file.routing.map(|text| text.parse());
            Ok(Entry::Alias(Alias {
                name,
                newest,
                routing: routing.transpose().map_err(|error| format!("{error}"))?,
            }))
        }
        (Some(suite), None) if file.routing.is_none() => Ok(Entry::Recipe(Recipe {
            name,
            description: file.description,
            suite,
            architecture: file.architecture.unwrap_or_else(|| "amd64".to_owned()),
            packages: words(packages),
            build_packages: words(build),
        })),
        _ => Err("it needs either `suite` or `newest`, and `routing` only beside `newest`".into()),
    }
}

fn built_in() -> &'static (Vec<Recipe>, Vec<Alias>) {
    static ALL: OnceLock<(Vec<Recipe>, Vec<Alias>)> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut all = (Vec::new(), Vec::new());
        for (name, toml, packages, build) in BUILT_IN {
            match parse(name, toml, packages, build).expect("a built-in recipe is well-formed") {
                Entry::Recipe(recipe) => all.0.push(recipe),
                Entry::Alias(alias) => all.1.push(alias),
            }
        }
        all
    })
}

impl Recipe {
    /// The built-in ones.
    pub fn built_in() -> &'static [Self] {
        &built_in().0
    }

    /// The recipe of a name; an alias has that of the stack that it would stand for once all are
    /// built. `folder` holds the operator's own, one folder each.
    ///
    /// # Errors
    /// None of that name; or its files cannot be read.
    pub fn find(name: &StackName, folder: Option<&Path>) -> Result<Self, RootfsError> {
        if let Some(folder) = folder {
            return Self::read(name, &folder.join(name.as_str()));
        }
        let names = Self::built_in().iter().map(|recipe| recipe.name.clone());
        let name = &resolve(name, names);
        let found = Self::built_in().iter().find(|recipe| recipe.name == *name);
        found.cloned().ok_or_else(|| {
            let known = BUILT_IN.iter().map(|(name, ..)| *name);
            RootfsError::NoRecipe {
                name: name.clone(),
                known: known.collect::<Vec<_>>().join(", "),
            }
        })
    }

    fn read(name: &StackName, dir: &Path) -> Result<Self, RootfsError> {
        let text = |file: &str, is_needed: bool| {
            let path = dir.join(file);
            match std::fs::read_to_string(&path) {
                Err(error) if !is_needed && error.kind() == std::io::ErrorKind::NotFound => {
                    Ok(String::new())
                }
                other => other.map_err(RootfsError::io("read", &path)),
            }
        };
        let (toml, packages) = (text("stack.toml", true)?, text("packages.txt", true)?);
        let build = text("packages-build.txt", false)?;
        let wrong = |reason: String| RootfsError::Recipe {
            path: dir.join("stack.toml"),
            reason,
        };
        match parse(name.as_str(), &toml, &packages, &build).map_err(wrong)? {
            Entry::Recipe(recipe) => Ok(recipe),
            Entry::Alias(_) => Err(wrong("only built-in stacks have other names".to_owned())),
        }
    }
}

impl Alias {
    /// All of them.
    pub fn all() -> &'static [Self] {
        &built_in().1
    }

    /// The one of this name.
    pub fn find(name: &StackName) -> Option<&'static Self> {
        Self::all().iter().find(|alias| alias.name == *name)
    }
}

/// How requests of an app on this stack are spread unless it says so itself.
pub fn default_routing(name: &StackName) -> Option<RoutingPolicy> {
    Alias::find(name)?.routing
}

/// What a name stands for, among these; itself if it is no alias or nothing fits.
pub(super) fn resolve(name: &StackName, among: impl IntoIterator<Item = StackName>) -> StackName {
    let Some(alias) = Alias::find(name) else {
        return name.clone();
    };
    let number =
        |one: &StackName| -> Option<u32> { one.as_str().strip_prefix(&alias.newest)?.parse().ok() };
    let newest = among.into_iter().filter(|one| number(one).is_some());
    newest.max_by_key(number).unwrap_or_else(|| name.clone())
}

/// Where apt's keys of Debian lie.
pub(super) fn keyring() -> PathBuf {
    "/usr/share/keyrings/debian-archive-keyring.gpg".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> StackName {
        text.parse().expect("a name")
    }

    #[test]
    fn built_in_recipes_are_debian_with_the_runtimes() {
        for (stack, suite) in [("cedar-12", "bookworm"), ("cedar-13", "trixie")] {
            let recipe = Recipe::find(&name(stack), None).expect("built in");
            assert_eq!(recipe.suite, suite);
            for package in ["ruby", "nodejs", "python3"] {
                assert!(recipe.packages.iter().any(|p| p == package), "{package}");
            }
            for package in ["leiningen", "maven", "scala"] {
                assert!(
                    recipe.build_packages.iter().any(|p| p == package),
                    "{package}"
                );
            }
        }
    }

    #[test]
    fn cedar_and_bamboo_name_the_newest() {
        for alias in ["cedar", "bamboo"] {
            let all = ["cedar-9", "cedar-12", "cedar-13", "cedar-x", "host"];
            let resolved = resolve(&name(alias), all.map(name));
            assert_eq!(resolved, name("cedar-13"));
            assert_eq!(resolve(&name(alias), [name("host")]), name(alias));
            let recipe = Recipe::find(&name(alias), None).expect("built in");
            assert_eq!(recipe.name, name("cedar-13"));
        }
        assert_eq!(resolve(&name("mine"), [name("cedar-13")]), name("mine"));
        assert_eq!(default_routing(&name("cedar")), None);
        let routing = default_routing(&name("bamboo"));
        assert_eq!(routing, Some(RoutingPolicy::GlobalQueue));
    }

    #[test]
    fn an_unknown_stack_is_told_the_known_ones() {
        let error = Recipe::find(&name("cedar-99"), None).expect_err("unknown");
        let text = error.to_string();
        assert!(text.contains("cedar-12, cedar-13, cedar, bamboo"), "{text}");
    }

    #[test]
    fn a_folder_of_ones_own_holds_recipes() {
        let dir = tempfile::tempdir().expect("a directory");
        let own = dir.path().join("own");
        std::fs::create_dir(&own).expect("made");
        let toml = "description = \"Mine\"\nsuite = \"bookworm\"\n";
        std::fs::write(own.join("stack.toml"), toml).expect("written");
        std::fs::write(own.join("packages.txt"), "# some\nbash curl\n").expect("written");
        let recipe = Recipe::find(&name("own"), Some(dir.path())).expect("found");
        assert_eq!(recipe.packages, ["bash", "curl"]);
        std::fs::write(own.join("stack.toml"), "description = 1").expect("written");
        let error = Recipe::find(&name("own"), Some(dir.path())).expect_err("refused");
        assert!(error.to_string().contains("stack.toml"), "{error}");
    }
}
