"""The words of Orqestra: values and rules, no I/O, no clock.

Start with `lifecycle` (the one transition table), then `job`, `decision` (what a report does to a
job) and `workflow`.

Glossary
--------
job        one command or call to run, a row in `jobs`; it ends completed, failed or cancelled.
attempt    one execution of a job that counts against its retries.
fence      number of the claim under which an attempt runs; with `token` it guards every write.
lane       a queue plus a set of required labels; the unit of waiting and of hints.
hint       "this id may be claimable", held in Redis; may be lost, doubled or stale.
session    one stream of one worker; it holds a lease.
run        one execution of a workflow; its steps are jobs.
claim      the guarded step from waiting to running; settle is its opposite. A new job may be stored claimed.
"""
