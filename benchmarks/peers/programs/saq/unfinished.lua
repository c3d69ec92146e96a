-- Each job is in the set of the incomplete ones from the enqueue until it has finished.
return redis.call('ZCARD', 'saq:default:incomplete')
