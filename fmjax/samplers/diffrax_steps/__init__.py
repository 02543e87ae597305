"""Steps that diffrax does not have, written as its solvers and controllers; imported when used."""
