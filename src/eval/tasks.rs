//! Answers to multiple-choice questions, read off the likelihoods of the choices.

use serde::Serialize;

use super::likelihood::{Request, log_likelihoods};
use super::progress::EvalProgress;
use super::questions::{Question, TaskSet, letter};
use super::statistics::Share;
use super::subject::Subject;
use super::text::{Markup, TextTokenizer};
use crate::error::{Error, Result};

/// How well questions were answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskScores {
    /// The file.
    pub file: std::path::PathBuf,
    /// BLAKE3 of its bytes.
    pub blake3: String,
    /// Questions asked.
    pub questions: usize,
    /// Solved examples before each.
    pub shots: usize,
    /// The most likely letter after the question and its lettered choices.
    pub letter: MethodScores,
    /// The most likely choice, written out after the question alone.
    pub text: MethodScores,
    /// The same by log-likelihood a byte of the choice.
    pub text_normalised: MethodScores,
}

/// One way of reading an answer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MethodScores {
    /// Share of right answers.
    pub accuracy: Share,
    /// The original's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy_against: Option<Share>,
    /// Share of questions that both answer alike, rightly or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<Share>,
}

/// The choice each method makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answers {
    letter: usize,
    text: usize,
    text_normalised: usize,
}

/// Asks all questions; a pass of the model takes as many of them as fit in `pass_tokens`.
///
/// # Errors
/// [`Error::Input`] for a question longer than a model takes, with its line; what the models
/// give.
pub(super) fn ask(
    model: &mut Subject,
    mut against: Option<&mut Subject>,
    tasks: &TaskSet,
    pass_tokens: usize,
    progress: &dyn EvalProgress,
) -> Result<TaskScores> {
    let prepared: Vec<Vec<Request>> = tasks
        .questions
        .iter()
        .map(|question| {
            let requests = requests(tasks, question, &model.tokenizer)?;
            check(tasks, question, &requests, model)?;
            if let Some(against) = &against {
                let theirs = self::requests(tasks, question, &against.tokenizer)?;
                for (ours, theirs) in requests.iter().zip(&theirs) {
                    model.check_same_tokens(against, ours.tokens(), theirs.tokens())?;
                }
                check(tasks, question, &requests, against)?;
            }
            Ok(requests)
        })
        .collect::<Result<_>>()?;
    progress
        .begin("asking", prepared.iter().flatten().map(Request::input_len).sum::<usize>() as u64);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut rest = tasks.questions.as_slice();
    for pass in passes(&prepared, pass_tokens) {
        let requests: Vec<&Request> = pass.iter().flatten().collect();
        let questions;
        (questions, rest) = rest.split_at(pass.len());
        ours.extend(answers(questions, &log_likelihoods(model, &requests)?));
        if let Some(against) = &mut against {
            theirs.extend(answers(questions, &log_likelihoods(against, &requests)?));
        }
        let tokens: usize = requests.iter().map(|request| request.input_len()).sum();
        let right = ours.iter().zip(&tasks.questions).filter(|(a, q)| a.letter == q.answer).count();
        let figures = format!("{right} of {} right by letter", ours.len());
        progress.advance(tokens as u64, &figures);
    }
    let method = |choice: fn(&Answers) -> usize| scores(tasks, &ours, &theirs, choice);
    Ok(TaskScores {
        file: tasks.path.clone(),
        blake3: tasks.blake3.clone(),
        questions: tasks.questions.len(),
        shots: tasks.shots.len(),
        letter: method(|answers| answers.letter),
        text: method(|answers| answers.text),
        text_normalised: method(|answers| answers.text_normalised),
    })
}

/// For each choice its letter, then for each choice its text.
fn requests(
    tasks: &TaskSet,
    question: &Question,
    tokenizer: &TextTokenizer,
) -> Result<Vec<Request>> {
    let letter_prompt = tasks.letter_prompt(question);
    let text_prompt = tasks.text_prompt(question);
    let letters = (0..question.choices.len()).map(|i| (&letter_prompt, letter(i).to_string()));
    let texts = question.choices.iter().map(|choice| (&text_prompt, choice.clone()));
    letters
        .chain(texts)
        .map(|(prompt, answer)| {
            let before = tokenizer.encode(prompt, Markup::Literal)?;
            let whole = tokenizer.encode(&format!("{prompt} {answer}"), Markup::Literal)?;
            Request::new(tokenizer.bos(), &before, &whole).ok_or_else(|| {
                let message = format!("line {}: no tokens for {answer:?}", question.line);
                Error::input(&tasks.path, message)
            })
        })
        .collect()
}

fn check(
    tasks: &TaskSet,
    question: &Question,
    requests: &[Request],
    model: &Subject,
) -> Result<()> {
    let longest = requests.iter().map(Request::input_len).max().unwrap_or(0);
    let maximum = model.network.max_positions();
    if longest > maximum {
        let message = format!(
            "line {}: {longest} tokens with its {} examples, but {} was made for {maximum}",
            question.line,
            tasks.shots.len(),
            model.identity.folder.display()
        );
        return Err(Error::input(&tasks.path, message));
    }
    let largest = requests.iter().flat_map(Request::tokens).copied().max();
    model.check_token(largest.unwrap_or(0))
}

/// Consecutive questions whose requests, padded to the longest, stay within `tokens`; at least
/// one question each.
fn passes(prepared: &[Vec<Request>], tokens: usize) -> Vec<&[Vec<Request>]> {
    let mut passes = Vec::new();
    let (mut start, mut longest, mut count) = (0, 0, 0);
    for (index, requests) in prepared.iter().enumerate() {
        let longer = requests.iter().map(Request::input_len).max().unwrap_or(0).max(longest);
        if index > start && longer * (count + requests.len()) > tokens {
            passes.push(&prepared[start..index]);
            (start, longest, count) = (index, 0, 0);
        }
        longest = requests.iter().map(Request::input_len).max().unwrap_or(0).max(longest);
        count += requests.len();
    }
    passes.push(&prepared[start..]);
    passes
}

fn answers(questions: &[Question], likelihoods: &[f64]) -> Vec<Answers> {
    let mut rest = likelihoods;
    questions
        .iter()
        .map(|question| {
            let (letters, texts);
            (letters, rest) = rest.split_at(question.choices.len());
            (texts, rest) = rest.split_at(question.choices.len());
            let a_byte: Vec<f64> = texts
                .iter()
                .zip(&question.choices)
                .map(|(likelihood, choice)| likelihood / choice.len() as f64)
                .collect();
            Answers {
                letter: largest(letters),
                text: largest(texts),
                text_normalised: largest(&a_byte),
            }
        })
        .collect()
}

/// Index of the largest value, the first of equal ones.
fn largest(values: &[f64]) -> usize {
    let better =
        |best: usize, index: usize| if values[index] > values[best] { index } else { best };
    (0..values.len()).reduce(better).expect("invariant: a question has choices")
}

fn scores(
    tasks: &TaskSet,
    ours: &[Answers],
    theirs: &[Answers],
    choice: fn(&Answers) -> usize,
) -> MethodScores {
    let count = ours.len();
    let accuracy = |all: &[Answers]| {
        let right = all.iter().zip(&tasks.questions).filter(|(a, q)| choice(a) == q.answer);
        Share::of(right.count(), count)
    };
    let compared = !theirs.is_empty();
    let alike = || ours.iter().zip(theirs).filter(|(a, b)| choice(a) == choice(b)).count();
    MethodScores {
        accuracy: accuracy(ours),
        accuracy_against: compared.then(|| accuracy(theirs)),
        agreement: compared.then(|| Share::of(alike(), count)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::progress::Silent;
    use super::super::table_model::TableModel;
    use super::*;

    /// ln p of each continuation by the definition, one token at a time.
    fn likelihood(model: &TableModel, tokens: &[u32], prompt_len: usize) -> f64 {
        (prompt_len..tokens.len())
            .map(|at| {
                let row = &model.table[tokens[at - 1] as usize * 1024..][..1024];
                let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
                f64::from(row[tokens[at] as usize]) - sum.ln()
            })
            .sum()
    }

    fn set() -> TaskSet {
        let path = std::path::Path::new("fixtures/tasks.jsonl");
        TaskSet::read(path, 2, None).unwrap()
    }

    #[test]
    fn answers_by_the_definition() {
        let table = TableModel::noise(5);
        let mut model = table.clone().subject("model");
        let mut against = TableModel::noise(6).subject("original");
        let tasks = set();
        let mut right = [0; 3];
        for question in &tasks.questions {
            let found: Vec<f64> = requests(&tasks, question, &model.tokenizer)
                .unwrap()
                .iter()
                .map(|r| likelihood(&table, r.tokens(), r.prompt_len()))
                .collect();
            let [answers] = &answers(std::slice::from_ref(question), &found)[..] else { panic!() };
            right[0] += usize::from(answers.letter == question.answer);
            right[1] += usize::from(answers.text == question.answer);
            right[2] += usize::from(answers.text_normalised == question.answer);
        }
        let count = tasks.questions.len();
        for pass_tokens in [1, 3000] {
            let found = ask(&mut model, Some(&mut against), &tasks, pass_tokens, &Silent).unwrap();
            assert!(found.text.agreement.unwrap().value < 1.0);
            let methods = [found.letter, found.text, found.text_normalised];
            for (method, right) in methods.iter().zip(right) {
                assert_eq!(method.accuracy, Share::of(right, count));
            }
        }
    }

    #[test]
    fn choices_are_read_in_order() {
        let question = Question {
            line: 1,
            question: "q".into(),
            choices: vec!["ab".into(), "c".into()],
            answer: 0,
        };
        // The plain sums favour the second choice, a byte of them the first.
        let found = answers(&[question], &[-2.0, -2.0, -3.0, -2.0]);
        assert_eq!(found, [Answers { letter: 0, text: 1, text_normalised: 0 }]);
    }

    #[test]
    fn a_question_over_the_context_is_named() {
        let mut table = TableModel::noise(1);
        table.max_positions = 60;
        let error = ask(&mut table.subject("m"), None, &set(), 512, &Silent).unwrap_err();
        assert!(error.to_string().contains("line 3: "), "{error}");
        assert!(error.to_string().contains("with its 2 examples"), "{error}");
    }
}
