-- The ledger of savings (gateway/savings.py) sums turns by the time at which they ended.
CREATE INDEX turn_ended ON turn (ended);
