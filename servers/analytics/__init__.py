"""The shop's figures: conversations, what they could not answer, sales, and customers who come back."""
