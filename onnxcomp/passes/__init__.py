"""Families of edits. Each pass is a frozen config and four functions: plan, apply, prove, relax (see base)."""
