// What training mails are composed of. `{other}` and `{issued}` are the amount and the date that are not asked for.

const parts = (text: string): string[] => text.trim().split(/\s*\|\s*/);

/** What is to be paid, and until when. */
export const now = parts(`
  Please pay {amount} by {due}. | {amount} is due on {due}. | By {due} we expect {amount}. |
  The new bill comes to {amount}, payable until {due}. | Before {due}, kindly transfer {amount}. |
  You owe us {amount}; the deadline is {due}. | Until {due} there is time to settle {amount}. |
  We will take {amount} from your account on {due}. | Can you send {amount} by {due}? |
  Payment due {due}: {amount}.
`);

/** What was before. */
export const before = parts(`
  Your last payment of {other} reached us on {issued}. | On {issued} we received {other}. |
  The {other} of {issued} are settled. | Thank you for the {other} that you paid on {issued}. |
  {issued}: {other} received. | The deposit of {other} was booked on {issued}. |
  On {issued} you were still charged {other}. | Our letter of {issued} wrongly said {other}. |
  We quoted {other} when we met on {issued}. | An earlier bill of {other}, sent {issued}, is closed.
`);

/** Both amounts: half of them tell the wanted one first. */
export const amounts = parts(`
  You pay {amount}, where you paid {other} before. | It is {amount} this time and not {other}. |
  The total is {amount}, after {other} last month. | We charge {amount} now; it used to be {other}. |
  {amount} is open, and {other} is paid already. | Your share is {amount}; your neighbours pay {other}. |
  Not {other} but {amount} is to be paid. | The price goes from {other} to {amount}. |
  Instead of {other} we ask for {amount}. | After your deposit of {other} there remains {amount}. |
  Last year it was {other}, this year it is {amount}. | We corrected {other} to {amount}.
`);

/** Both dates: half of them tell the wanted one first. */
export const dates = parts(`
  Pay by {due}; this mail was written on {issued}. | The deadline is {due}, as agreed on {issued}. |
  It is due {due}, for the work of {issued}. | We expect it until {due}. The bill was issued on {issued}. |
  By {due}, please. Your visit was on {issued}. | Your last day to pay is {due}, not {issued}. |
  Written on {issued}, payable by {due}. | We sent the bill on {issued} and want it settled by {due}. |
  The bill of {issued} falls due on {due}. | Since {issued} it is open; please pay before {due}. |
  The order came in on {issued}; the money should be here by {due}. | Dated {issued}, due {due}.
`);

/** Who writes. */
export const opening = parts(`
  {name}: | From {name}. | This is {name}. | {name} writes to you. | A word from {name}. |
  Here is the bill of {name}. | Dear customer of {name}, | News about your account at {name}.
`);
export const closing = parts(`
  Regards, {name} | Thank you, {name} | Yours, {name} | {name}, accounts | Sent by {name}. | Your team at {name} |
  Best wishes from {name} | Pay to {name}.
`);

/** What says nothing of the bill. */
export const chatter = parts(`
  We hope that all is well with you. | If anything is unclear, just answer this mail. |
  You find the details in the letter. | Our office is open on weekdays from nine to five. |
  It was a pleasure to work for you. | Please give the number of your account when you pay. |
  Have you tried our new app yet? | We are sorry that this comes late. | Nothing else has changed. |
  If you have paid in the meantime, please ignore this. | You are welcome to pay in cash or by card. |
  Many thanks for your trust over the years. | This mail was written by a machine and needs no answer. |
  Our new address is at the foot of the page.
`);
export const trainNames = parts(`
  Harbor Electric | Bluebird Telecom | Oakwood Dental | Summit Insurance | Riverside Gym | Maple Street Garage |
  Crown Cleaning | Pioneer Internet | Lakeview Clinic | Golden Bakery | Atlas Storage | Cedar Gardens |
  Metro Parking | Silver Fox Films | Willow Books | Eagle Transport | Fairway Sports | Juniper Design |
  Keystone Legal | Velvet Music School | Birch Lane Market | Anchor Boats | Polar Ice Rink | Comet Couriers
`);

export const greeting = ["", "", "", "Hello!", "Good morning,", "Dear customer,", "Hi there,"];

/** How both amounts of a mail are written. */
export const currencies = ["#", "#", "#", "$#", "€#", "£#", "# EUR", "EUR #", "# dollars", "USD #"];

/** What stands between the parts of a mail. */
export const breaks = [" ", " ", "\n", "\n\n"];
