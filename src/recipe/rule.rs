//! One rule of a recipe.

use std::sync::Arc;

use regex::Regex;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::checkpoint::role::Role;
use crate::codec::{self, Codec, Params};

/// Name in recipes for leaving a tensor as it is.
const KEEP: &str = "keep";

/// Largest adapter rank taken; more than this is not low rank.
const MAX_RANK: i64 = 4096;

/// Which tensors, and what becomes of them.
#[derive(Debug, Clone)]
pub struct Rule {
    pattern: Option<Regex>,
    roles: Vec<Role>,
    /// The flag that the rule was given by, as it was typed; of a recipe's own rule nothing.
    pub(super) flag: Option<String>,
    /// May decide for no tensor at all.
    pub optional: bool,
    /// Kinds of codecs that a budget may choose among; empty for relatives of the rule's own.
    pub budget: Vec<&'static str>,
    /// What becomes of the tensors.
    pub action: Action,
}

/// What becomes of a tensor.
#[derive(Debug, Clone)]
pub enum Action {
    /// It stays as it is.
    Keep {
        /// The reason given in the manifest.
        why: String,
    },
    /// It is coded.
    Code {
        /// The codec.
        codec: Arc<dyn Codec>,
        /// Rank of the adapter extracted before coding; 0 for none.
        rank: usize,
    },
}

impl Action {
    /// Name of the codec, or "keep".
    #[must_use]
    pub fn codec_name(&self) -> &'static str {
        match self {
            Self::Keep { .. } => KEEP,
            Self::Code { codec, .. } => codec.name(),
        }
    }
}

impl Rule {
    /// Reads a rule from its TOML table.
    pub(super) fn parse(mut table: toml::Table) -> Result<Self, String> {
        let pattern = match table.remove("match") {
            None => None,
            Some(toml::Value::String(text)) => Some(compile(&text)?),
            Some(_) => return Err("match must be a string".into()),
        };
        let roles = match table.remove("role") {
            None => Vec::new(),
            Some(toml::Value::Array(roles)) => {
                roles.into_iter().map(parse_role).collect::<Result<_, _>>()?
            }
            Some(role) => vec![parse_role(role)?],
        };
        if pattern.is_none() && roles.is_empty() {
            return Err("needs match or role".into());
        }
        let optional = match table.remove("optional") {
            None => false,
            Some(toml::Value::Boolean(optional)) => optional,
            Some(_) => return Err("optional must be true or false".into()),
        };
        let Some(toml::Value::String(codec)) = table.remove("codec") else {
            return Err("needs codec = \"NAME\"".into());
        };
        if codec == KEEP {
            return Ok(Self {
                pattern,
                roles,
                flag: None,
                optional,
                budget: vec![],
                action: parse_keep(table)?,
            });
        }
        let budget = parse_budget(table.remove("budget"))?;
        let action = parse_code(&codec, table)?;
        Ok(Self { pattern, roles, flag: None, optional, budget, action })
    }

    /// `--ignore REGEX`: keep what matches.
    pub(super) fn ignore(pattern: &str) -> Result<Self, String> {
        let flag = format!("--ignore {pattern}");
        let action = Action::Keep { why: flag.clone() };
        let (pattern, roles, budget) = (Some(compile(pattern)?), Vec::new(), Vec::new());
        Ok(Self { pattern, roles, flag: Some(flag), optional: false, budget, action })
    }

    /// `--tensor-type REGEX=CODEC`: code what matches with the codec's defaults. The codec may
    /// carry parameters: `REGEX=grid2:group=64,rank=8`.
    pub(super) fn tensor_type(text: &str) -> Result<Self, String> {
        let (pattern, spec) = split_spec(text).ok_or_else(|| {
            format!("{text:?} is not REGEX=CODEC or REGEX=CODEC:key=value,key=value")
        })?;
        let (codec, params) = spec.split_once(':').unwrap_or((spec, ""));
        let mut table = toml::Table::new();
        for pair in params.split(',').filter(|pair| !pair.is_empty()) {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| format!("{pair:?} is not key=value"))?;
            let value = value
                .parse()
                .map_or_else(|_| toml::Value::String(value.to_owned()), toml::Value::Integer);
            table.insert(key.to_owned(), value);
        }
        table.insert("match".into(), pattern.into());
        table.insert("codec".into(), codec.into());
        let rule = Self::parse(table)?;
        Ok(Self { flag: Some(format!("--tensor-type {text}")), ..rule })
    }

    /// Codes the tensor `name` alone.
    #[cfg(feature = "model")]
    pub(super) fn exact(name: &str, codec: &Arc<dyn Codec>, rank: usize) -> Self {
        let pattern = Regex::new(&format!("^{}$", regex::escape(name)))
            .expect("invariant: an escaped name is a regular expression");
        let action = Action::Code { codec: Arc::clone(codec), rank };
        let (roles, budget) = (Vec::new(), Vec::new());
        Self { pattern: Some(pattern), roles, flag: None, optional: false, budget, action }
    }

    /// Whether the rule is about tensor `name` of role `role`.
    #[must_use]
    pub fn matches(&self, name: &str, role: Role) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(name))
            && (self.roles.is_empty() || self.roles.contains(&role))
    }

    /// The rule's conditions, for messages.
    #[must_use]
    pub fn describe_match(&self) -> String {
        let mut conditions = Vec::new();
        if let Some(pattern) = &self.pattern {
            conditions.push(format!("match = {:?}", pattern.as_str()));
        }
        if !self.roles.is_empty() {
            let names: Vec<&str> = self.roles.iter().map(|r| r.name()).collect();
            conditions.push(format!("role = {}", names.join(" or ")));
        }
        conditions.join(", ")
    }
}

/// Splits `REGEX=CODEC[:params]` at the last `=` that a codec's name follows.
fn split_spec(text: &str) -> Option<(&str, &str)> {
    text.char_indices()
        .rev()
        .filter(|&(_, c)| c == '=')
        .map(|(i, _)| (&text[..i], &text[i + 1..]))
        .find(|(_, spec)| {
            let name = spec.split_once(':').map_or(*spec, |(name, _)| name);
            name == KEEP || codec::names().any(|known| known == name)
        })
        .or_else(|| text.split_once('='))
}

/// Parses a pattern for names.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    Regex::new(pattern).map_err(|e| {
        let hint = if pattern.contains('*') { "; for anything write .* instead of *" } else { "" };
        format!("bad regular expression: {e}{hint}")
    })
}

fn parse_role(value: toml::Value) -> Result<Role, String> {
    value.try_into().map_err(|e: toml::de::Error| format!("role: {}", e.message()))
}

fn parse_keep(mut table: toml::Table) -> Result<Action, String> {
    let why = match table.remove("why") {
        None => "kept by the recipe".to_owned(),
        Some(toml::Value::String(why)) => why,
        Some(_) => return Err("why must be a string".into()),
    };
    match table.keys().next() {
        None => Ok(Action::Keep { why }),
        Some(key) => Err(format!("codec \"keep\" has no parameter {key:?}")),
    }
}

fn parse_budget(value: Option<toml::Value>) -> Result<Vec<&'static str>, String> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let wanted: Vec<String> =
        value.try_into().map_err(|e: toml::de::Error| format!("budget: {}", e.message()))?;
    let known = |name: &String| {
        codec::names().find(|known| known == name).ok_or_else(|| {
            let names: Vec<&str> = codec::names().collect();
            format!("budget: {name:?} is no codec; these are: {}", names.join(", "))
        })
    };
    wanted.iter().map(known).collect()
}

fn parse_code(name: &str, mut table: toml::Table) -> Result<Action, String> {
    let rank = match table.remove("rank") {
        None => 0,
        Some(toml::Value::Integer(rank @ 0..=MAX_RANK)) => rank as usize,
        Some(other) => return Err(format!("rank must be 0 to {MAX_RANK}, not {other}")),
    };
    let Ok(serde_json::Value::Object(params)) = serde_json::to_value(table) else {
        return Err("parameters must be plain values".into());
    };
    Ok(Action::Code { codec: codec::build(name, params)?, rank })
}

/// Written as it would be typed, with every parameter spelt out.
impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(pattern) = &self.pattern {
            map.serialize_entry("match", pattern.as_str())?;
        }
        if !self.roles.is_empty() {
            map.serialize_entry("role", &self.roles)?;
        }
        map.serialize_entry("codec", self.action.codec_name())?;
        match &self.action {
            Action::Keep { why } => map.serialize_entry("why", why)?,
            Action::Code { codec, rank } => {
                let params: Params = codec.params();
                for (key, value) in params.iter().filter(|(_, value)| !value.is_null()) {
                    map.serialize_entry(key, value)?;
                }
                if *rank > 0 {
                    map.serialize_entry("rank", rank)?;
                }
                if !self.budget.is_empty() {
                    map.serialize_entry("budget", &self.budget)?;
                }
            }
        }
        if self.optional {
            map.serialize_entry("optional", &true)?;
        }
        map.end()
    }
}
