//! Signal-to-noise ratios in decibels, and how JSON has them.
//!
//! `None` is a weight without any error, null in JSON. An error of a weight that is all zeros is
//! infinitely loud: that is negative infinity, which JSON has no number for, so it is the text
//! `"-inf"`.

use serde::{Deserialize, Deserializer, Serializer, de};

/// Negative infinity in JSON.
const ALL_ERROR: &str = "-inf";

/// 10·log10(signal / noise); `None` without noise.
pub(crate) fn ratio(signal: f64, noise: f64) -> Option<f64> {
    // Noise that is not a number is noise.
    (noise != 0.0).then(|| {
        let db = 10.0 * (signal / noise).log10();
        if db.is_nan() { f64::NEG_INFINITY } else { db }
    })
}

/// A ratio for people.
pub(crate) fn show(db: Option<f64>) -> String {
    db.map_or("exact".to_owned(), |db| format!("{db:.2} dB"))
}

/// Writes a ratio.
pub(crate) fn serialize<S: Serializer>(db: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match db {
        None => serializer.serialize_none(),
        Some(db) => serialize_some(db, serializer),
    }
}

/// Writes the ratio of something that has an error.
pub(crate) fn serialize_some<S: Serializer>(db: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if *db == f64::NEG_INFINITY {
        serializer.serialize_str(ALL_ERROR)
    } else {
        serializer.serialize_f64(*db)
    }
}

/// Reads a ratio.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<f64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Number(f64),
        Text(String),
    }
    match Option::<Stored>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Stored::Number(db)) => Ok(Some(db)),
        Some(Stored::Text(text)) if text == ALL_ERROR => Ok(Some(f64::NEG_INFINITY)),
        Some(Stored::Text(text)) => {
            Err(de::Error::custom(format!("{text:?} is no ratio: a number, null or {ALL_ERROR:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, Deserialize)]
    struct Entry {
        #[serde(with = "super")]
        db: Option<f64>,
    }

    #[test]
    fn exact_and_all_error_are_told_apart() {
        assert_eq!(ratio(3.0, 0.0), None);
        assert_eq!(ratio(0.0, 0.0), None);
        assert_eq!(ratio(0.0, 2.0), Some(f64::NEG_INFINITY));
        assert_eq!(ratio(1.0, f64::NAN), Some(f64::NEG_INFINITY));
        assert_eq!(ratio(100.0, 1.0), Some(20.0));
        let json = |db| serde_json::to_string(&Entry { db }).unwrap();
        assert_eq!(json(None), r#"{"db":null}"#);
        assert_eq!(json(Some(f64::NEG_INFINITY)), r#"{"db":"-inf"}"#);
        assert_eq!(json(Some(-3.25)), r#"{"db":-3.25}"#);
        for db in [None, Some(f64::NEG_INFINITY), Some(0.1 + 1e-17), Some(7.0)] {
            assert_eq!(serde_json::from_str::<Entry>(&json(db)).unwrap(), Entry { db });
        }
        assert!(serde_json::from_str::<Entry>(r#"{"db":"inf"}"#).is_err());
    }
}
