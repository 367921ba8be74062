//! Multiple-choice questions: a file of them, and the prompts they become.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, IoContext, Result};

/// As many choices as there are letters.
const CHOICES: RangeInclusive<usize> = 2..=26;

/// One multiple-choice question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Line in its file, from 1.
    pub line: usize,
    /// The question.
    pub question: String,
    /// The possible answers, 2 to 26.
    pub choices: Vec<String>,
    /// Number of the right one, from 0.
    pub answer: usize,
}

/// A line of the file; other keys, such as a subject, are allowed.
#[derive(Deserialize)]
struct Line {
    question: String,
    choices: Vec<String>,
    answer: Value,
}

/// Questions to ask and solved ones to show before each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSet {
    /// The file.
    pub path: PathBuf,
    /// BLAKE3 of its bytes.
    pub blake3: String,
    /// What is asked.
    pub questions: Vec<Question>,
    /// Solved examples, shown before every question.
    pub shots: Vec<Question>,
}

impl TaskSet {
    /// Reads a JSON Lines file of `{"question", "choices", "answer"}`, the answer a number from 0
    /// or a letter. The first `shots` questions of `shots_from` are shown as examples; without
    /// it, those of the file itself, which are then not asked.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Input`] naming file and line, or if nothing is left to ask.
    pub fn read(path: &Path, shots: usize, shots_from: Option<&Path>) -> Result<Self> {
        let bytes = std::fs::read(path).at("read", path)?;
        let mut questions = parse(path, &bytes)?;
        let shots = match shots_from {
            Some(other) => {
                let all = parse(other, &std::fs::read(other).at("read", other)?)?;
                take(other, all, shots)?.0
            }
            None => {
                let (shots, rest) = take(path, questions, shots)?;
                questions = rest;
                shots
            }
        };
        if questions.is_empty() {
            return Err(Error::input(path, "no question is left to ask"));
        }
        let blake3 = blake3::hash(&bytes).to_hex().to_string();
        Ok(Self { path: path.to_path_buf(), blake3, questions, shots })
    }

    /// The prompt for an answer by letter: examples and the question with lettered choices.
    pub(super) fn letter_prompt(&self, question: &Question) -> String {
        let mut prompt = String::new();
        for shot in &self.shots {
            prompt += &format!("{} {}\n\n", lettered(shot), letter(shot.answer));
        }
        prompt + &lettered(question)
    }

    /// The prompt for an answer in full: examples and the question without its choices.
    pub(super) fn text_prompt(&self, question: &Question) -> String {
        let mut prompt = String::new();
        for shot in &self.shots {
            prompt += &format!("{} {}\n\n", plain(shot), shot.choices[shot.answer]);
        }
        prompt + &plain(question)
    }
}

/// The letter of choice `index`.
pub(super) fn letter(index: usize) -> char {
    char::from(b'A' + index as u8)
}

fn lettered(question: &Question) -> String {
    let mut text = format!("{}\n", question.question);
    for (index, choice) in question.choices.iter().enumerate() {
        text += &format!("{}. {choice}\n", letter(index));
    }
    text + "Answer:"
}

fn plain(question: &Question) -> String {
    format!("Question: {}\nAnswer:", question.question)
}

fn take(
    path: &Path,
    mut questions: Vec<Question>,
    count: usize,
) -> Result<(Vec<Question>, Vec<Question>)> {
    if questions.len() < count {
        let message = format!("has {} questions, but {count} are to be shown", questions.len());
        return Err(Error::input(path, message));
    }
    let rest = questions.split_off(count);
    Ok((questions, rest))
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Question>> {
    let lines = bytes.split(|&byte| byte == b'\n').enumerate();
    lines
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(|(index, line)| {
            parse_line(index + 1, line)
                .map_err(|message| Error::input(path, format!("line {}: {message}", index + 1)))
        })
        .collect()
}

fn parse_line(number: usize, line: &[u8]) -> Result<Question, String> {
    let line: Line = serde_json::from_slice(line)
        .map_err(|e| format!("not a question with question, choices and answer: {e}"))?;
    let count = line.choices.len();
    if !CHOICES.contains(&count) {
        return Err(format!("{count} choices; 2 to 26 are possible"));
    }
    let question = line.question.trim().to_owned();
    let choices: Vec<String> = line.choices.iter().map(|c| c.trim().to_owned()).collect();
    if question.is_empty() || choices.iter().any(String::is_empty) {
        return Err("the question or a choice is empty".to_owned());
    }
    let answer = match &line.answer {
        Value::String(text) => match text.trim().as_bytes() {
            [byte @ (b'A'..=b'Z' | b'a'..=b'z')] => {
                Some(usize::from(byte.to_ascii_uppercase() - b'A'))
            }
            _ => None,
        },
        number => number.as_u64().and_then(|number| usize::try_from(number).ok()),
    };
    match answer {
        Some(answer) if answer < count => Ok(Question { line: number, question, choices, answer }),
        _ => Err(format!(
            "answer {}: neither a number from 0 nor a letter of the {count} choices",
            line.answer
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"question": "1+1?", "choices": ["1", "2"], "answer": "B"}

{"question": " Red? ", "choices": ["no", "yes ", "maybe"], "answer": 1, "subject": "colours"}
"#;

    fn read(text: &str, shots: usize) -> Result<TaskSet> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q.jsonl");
        std::fs::write(&path, text).unwrap();
        TaskSet::read(&path, shots, None)
    }

    #[test]
    fn prompts() {
        let set = read(FILE, 1).unwrap();
        assert_eq!((set.shots.len(), set.questions.len()), (1, 1));
        assert_eq!((set.questions[0].line, set.questions[0].answer), (3, 1));
        assert_eq!(
            set.letter_prompt(&set.questions[0]),
            "1+1?\nA. 1\nB. 2\nAnswer: B\n\nRed?\nA. no\nB. yes\nC. maybe\nAnswer:"
        );
        assert_eq!(
            set.text_prompt(&set.questions[0]),
            "Question: 1+1?\nAnswer: 2\n\nQuestion: Red?\nAnswer:"
        );
    }

    #[test]
    fn bad_lines_are_named() {
        let bad = [
            ("{", "line 1: not a question"),
            ("\n{\"question\": \"q\", \"choices\": [\"a\", \"b\"]}", "line 2: not a question"),
            (r#"{"question": "q", "choices": ["a"], "answer": 0}"#, "1 choices"),
            (r#"{"question": "q", "choices": ["a", " "], "answer": 0}"#, "empty"),
            (r#"{"question": "q", "choices": ["a", "b"], "answer": 2}"#, "answer 2"),
            (r#"{"question": "q", "choices": ["a", "b"], "answer": -1}"#, "answer -1"),
            (r#"{"question": "q", "choices": ["a", "b"], "answer": "AB"}"#, "answer \"AB\""),
            ("", "no question is left"),
        ];
        for (text, words) in bad {
            let message = read(text, 0).unwrap_err().to_string();
            assert!(message.contains(words) && message.contains("q.jsonl"), "{message}");
        }
        assert!(read(FILE, 2).unwrap_err().to_string().contains("no question is left"));
        assert!(read(FILE, 3).unwrap_err().to_string().contains("has 2 questions, but 3"));
    }
}
