"""How sure a model is, on what ground it answers, and when it should say that it does not know."""
