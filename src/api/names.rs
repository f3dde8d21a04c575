//! Names for apps whose owner gave none: `warm-frost-1289`.

use rand::RngExt as _;

use crate::model::AppName;

const ADJECTIVES: &[&str] = &[
    "ancient",
    "autumn",
    "bitter",
    "blooming",
    "blue",
    "bold",
    "brave",
    "breezy",
    "calm",
    "cold",
    "cool",
    "crimson",
    "damp",
    "dark",
    "dawn",
    "dry",
    "empty",
    "falling",
    "floating",
    "fragrant",
    "frosty",
    "gentle",
    "glacial",
    "green",
    "hidden",
    "icy",
    "late",
    "limitless",
    "lively",
    "misty",
    "morning",
    "mysterious",
    "nameless",
    "old",
    "patient",
    "polished",
    "powerful",
    "proud",
    "quiet",
    "rapid",
    "restless",
    "rough",
    "salty",
    "serene",
    "sharp",
    "shielded",
    "shrouded",
    "silent",
    "sleepy",
    "snowy",
    "solitary",
    "sparkling",
    "spring",
    "still",
    "stormy",
    "strong",
    "summer",
    "thawing",
    "tranquil",
    "twilight",
    "vast",
    "wandering",
    "warm",
    "whispering",
    "wild",
    "winter",
    "young",
];

const NOUNS: &[&str] = &[
    "atoll",
    "badlands",
    "basin",
    "bastion",
    "bayou",
    "beach",
    "bird",
    "brook",
    "brushlands",
    "butterfly",
    "castle",
    "cherry",
    "chamber",
    "cliffs",
    "cloud",
    "coast",
    "cove",
    "crag",
    "dawn",
    "depths",
    "dew",
    "dream",
    "dusk",
    "earth",
    "escarpment",
    "everglades",
    "falls",
    "feather",
    "field",
    "fire",
    "fjord",
    "flower",
    "fog",
    "forest",
    "fortress",
    "frost",
    "garden",
    "gorge",
    "grass",
    "harbor",
    "haze",
    "headland",
    "hill",
    "hollows",
    "island",
    "journey",
    "lake",
    "leaf",
    "meadow",
    "mesa",
    "moon",
    "mountain",
    "oasis",
    "ocean",
    "peak",
    "pine",
    "plains",
    "pond",
    "rain",
    "reef",
    "ridge",
    "river",
    "sands",
    "savannah",
    "sea",
    "shadow",
    "shore",
    "sky",
    "smoke",
    "snow",
    "spire",
    "star",
    "stream",
    "sun",
    "sunset",
    "surf",
    "temple",
    "thunder",
    "tor",
    "tundra",
    "valley",
    "violet",
    "voice",
    "water",
    "wave",
    "wildflower",
    "wind",
    "wood",
];

/// A random name; whether it is taken only the store can say.
///
/// # Panics
/// Never: a test holds every combination to the rule of app names.
pub(super) fn generate() -> AppName {
    let mut random = rand::rng();
    let adjective = ADJECTIVES[random.random_range(0..ADJECTIVES.len())];
    let noun = NOUNS[random.random_range(0..NOUNS.len())];
    let number = random.random_range(1000..100_000);
    format!("{adjective}-{noun}-{number}")
        .parse()
        .expect("the words make app names")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_is_an_app_name() {
        for adjective in ADJECTIVES {
            for noun in NOUNS {
                let name = format!("{adjective}-{noun}-99999");
                assert!(name.parse::<AppName>().is_ok(), "{name}");
            }
        }
    }
}
