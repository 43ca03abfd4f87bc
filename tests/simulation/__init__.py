"""The real code of the library in simulated time.

The model of the world, from the bottom up; each module's docstring says more:

`world`     One thread, one queue of moments, one random generator. Every thread of every simulated process is a
            greenlet, which runs until it asks for something (a clock, a lock, an event, an answer); there the world may
            let others run first, let time pass, or freeze the whole process. Nothing else decides what happens next,
            so that one seed is one story.
`stepping`  Lets the world switch between the statements of the functions that matter, too.
`database`  PostgreSQL as far as the protocol can tell: statements that take effect at one instant between request and
            answer, connections that break before or after that instant, notifications that may be lost, a standby.
`fleet`     What runs in a process: the state and the WSGI middleware of the library over a handler that takes time, the
            clients that call it, and the operators that flip and prove.
`history`   What happened, in one order, and the invariants that are checked over it.
`scenario`  What a seed means: a fleet, its faults, and the two halves of a run. In the storm everything may go wrong
            and nothing may be claimed wrongly; in the calm behind it everything must come right again.
`planted`   Bugs, each one a small change of the real code, that the invariants must catch.

Nothing of the library is replaced but its edge: `maintenance.base.runtime.Runtime` and the store.
"""
