//! Running cases: which connection each gets, and what becomes of it afterwards.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    agent::Agent,
    case::{Case, Need, Outcome, Stop, failed},
    context::{Context, Numbers},
    frame::word,
    report::{Report, Result as Ended, Row},
    session::{Owed, Session},
    setup::Setup,
};

/// After each case the agent is listened to for so long: a second answer or notification fails the case it belongs to.
const AFTERMATH: Duration = Duration::from_millis(30);

/// Runs cases on one agent.
pub struct Runner<'a> {
    agent: &'a mut dyn Agent,
    setup: &'a Setup,
    limit: Duration,
    numbers: Numbers,
    owed: Owed,
    current: Option<Ready>,
}

/// A connection on which the version is agreed.
struct Ready {
    session: Session,
    capabilities: Value,
}

impl<'a> Runner<'a> {
    /// A run in which no answer may take longer than `limit`.
    pub fn new(agent: &'a mut dyn Agent, setup: &'a Setup, limit: Duration) -> Self {
        Self {
            agent,
            setup,
            limit,
            numbers: Numbers::default(),
            owed: Owed::default(),
            current: None,
        }
    }

    /// Runs `cases`; `each` hears of every one as it ends.
    pub fn run(mut self, cases: &[Case], mut each: impl FnMut(&Row)) -> Report {
        let mut order: Vec<&Case> = cases.iter().collect();
        if !self.agent.is_new_each_time() {
            // An agent that does not dial again is at least tried on its one connection. What ends it comes last.
            order.sort_by_key(|case| {
                (
                    case.needs.contains(&Need::PowerOff),
                    case.needs.contains(&Need::Fresh),
                )
            });
        }
        let rows = order.into_iter().map(|case| {
            let begun = Instant::now();
            let (result, reason) = match self.one(case) {
                Ok(()) => (Ended::Passed, None),
                Err(Stop::Failed(what)) => (Ended::Failed, Some(what)),
                Err(Stop::NotTried(why)) => (Ended::NotTried, Some(why)),
            };
            let row = Row {
                case: case.name,
                section: case.section,
                result,
                time_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
                reason,
            };
            each(&row);
            row
        });
        let cases = rows.collect();
        let _ = self.drop_connection();
        Report { cases }
    }

    fn one(&mut self, case: &Case) -> Outcome {
        self.check_setup(case)?;
        let fresh = case.needs.contains(&Need::Fresh);
        let mut ready = if fresh {
            self.drop_connection()?;
            Ready {
                session: self.connect()?,
                capabilities: Value::Null,
            }
        } else {
            match self.current.take() {
                Some(ready) => ready,
                None => self.negotiated()?,
            }
        };
        let outcome = check_capabilities(case, &ready.capabilities).and_then(|()| {
            let mut context = Context::new(
                &mut ready.session,
                self.agent,
                self.setup,
                &ready.capabilities,
                &mut self.numbers,
                self.owed.clone(),
            );
            let outcome = (case.run)(&mut context);
            let after = context.session.listen_for(AFTERMATH);
            context.clean_up();
            outcome.and(after)
        });
        let keep = !fresh && outcome.is_ok() && !self.agent.is_new_each_time();
        if keep || matches!(outcome, Err(Stop::NotTried(_))) && !fresh {
            self.current = Some(ready);
            return outcome;
        }
        drop(ready);
        outcome.and(self.agent.disconnect().map_err(Stop::Failed))
    }

    fn check_setup(&self, case: &Case) -> Outcome {
        for need in case.needs {
            let missing = match need {
                Need::Shell => self.setup.shell.as_ref().err().cloned(),
                Need::Container => self.setup.container.as_ref().err().cloned(),
                Need::PowerOff if !self.setup.may_power_off => {
                    Some("it would end the agent's machine (--may-power-off)".to_owned())
                }
                Need::PowerOff | Need::Fresh | Need::Capability(_) => None,
            };
            if let Some(why) = missing {
                return Err(Stop::NotTried(why));
            }
        }
        Ok(())
    }

    fn connect(&mut self) -> Outcome<Session> {
        let link = self.agent.connect().map_err(Stop::NotTried)?;
        Ok(Session::new(
            link.reader,
            link.writer,
            link.half_close,
            self.owed.clone(),
            self.limit,
        ))
    }

    fn negotiated(&mut self) -> Outcome<Ready> {
        let mut session = self.connect()?;
        let range = json!({
            "ContainerId": "",
            "ActivityId": "00000000-0000-0000-0000-000000000000",
            "MinimumVersion": 4,
            "MaximumVersion": 4,
        });
        let mut reply = session.call(word::NEGOTIATE_PROTOCOL, &range)?.ok()?;
        if reply["Version"] != 4 {
            return failed(format!("the agent chose version {} of 4 to 4", reply["Version"]));
        }
        Ok(Ready {
            session,
            capabilities: reply["Capabilities"].take(),
        })
    }

    fn drop_connection(&mut self) -> Outcome {
        if self.current.take().is_some() {
            self.agent.disconnect().map_err(Stop::Failed)?;
        }
        Ok(())
    }
}

fn check_capabilities(case: &Case, capabilities: &Value) -> Outcome {
    for need in case.needs {
        if let Need::Capability(name) = need
            && capabilities["GuestDefinedCapabilities"][name] != true
        {
            return Err(Stop::NotTried(format!("the agent does not say {name}")));
        }
    }
    Ok(())
}
