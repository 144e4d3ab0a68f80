//! The plan that was shown last: what the numbers mean that a person names to `evenkeel apply`.
//!
//! **Invariant:** a number never means a VM of a plan that nobody saw: they hold for [`PLAN_SHOWN_MAX`], in this life of the agent.

use api::{PLAN_SHOWN_MAX, Plan, Problem};
use decide::units::Time;

/// It, and when it was shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown(Option<(Time, Plan)>);

impl Shown {
    /// Remembers it.
    pub(crate) fn keep(&mut self, now: Time, plan: &Plan) {
        self.0 = Some((now, plan.clone()));
    }

    /// It, if it still holds.
    ///
    /// # Errors
    /// It is too old, or there is none.
    pub(crate) fn last(&self, now: Time) -> Result<Plan, Problem> {
        let minutes = PLAN_SHOWN_MAX.as_secs() / 60;
        let why = match &self.0 {
            None => "no plan was shown since the agent started, so numbers mean nothing".to_owned(),
            Some((at, plan)) if now.since(*at) < PLAN_SHOWN_MAX => return Ok(plan.clone()),
            Some(_) => {
                format!(
                    "the plan was shown more than {minutes} min ago: its numbers hold no longer"
                )
            }
        };
        Err(Problem::new(409, "no-plan-shown", why, "look at `evenkeel plan` anew, or name VMs"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(end: &str) -> Plan {
        Plan { host: "host1".to_owned(), moves: vec![], held: None, end: end.to_owned() }
    }

    #[test]
    fn numbers_are_of_the_plan_that_was_shown_last_and_for_a_limited_time() {
        let second = |n: u64| Time(n * 1_000_000);
        let mut shown = Shown::default();
        let why = |shown: &Shown, at| shown.last(second(at)).unwrap_err().title;
        assert!(why(&shown, 1).starts_with("no plan was shown since the agent started"));
        shown.keep(second(10), &plan("first"));
        shown.keep(second(20), &plan("second"));
        assert_eq!(shown.last(second(619)).unwrap().end, "second");
        assert!(why(&shown, 620).starts_with("the plan was shown more than 10 min ago"));
        shown.keep(second(700), &plan("third"));
        assert_eq!(shown.last(second(701)).unwrap().end, "third");
    }
}
