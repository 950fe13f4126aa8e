"""The broker: a small resident process that keeps first processes parked and proofs warm, and starts containers.

    server.py      accepts callers at a socket, by who they are, and gives each start a slot
    starting.py    a caller's words to an order: admission, plan, descriptors
    pool.py        slots that wait, and the nursery that makes them
    nursery.py     a process that does nothing but fork slots
    slot.py        one slot: parks a first process, has it carry out an order, supervises the container to its end
    parked.py      a first process that has executed a plan's preparation, and waits for the rest
    watching.py    whether what runs may go on
    clerk.py       a process that asks the registries
    wire.py        messages with descriptors
    roles.py       who may start, and who may only look

A slot outlives the broker: its container runs on, and the next broker finds it by its record.
"""
